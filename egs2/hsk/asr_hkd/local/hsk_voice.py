"""Concatenative synthesis from recorded syllables."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hsk_pinyin import NEUTRAL, zhuyin
from hsk_sentences import Sentence

from espnet_cif_hkd.errors import UserError

RATE = 16_000
VOICE = "3"
_NEUTRAL_RECORDED_AS = "1"

# Recordings begin and end with silence of different length. Frames of 5 ms below this
# share of the loudest one are cut off there.
_SILENT = 0.03
_FRAME = 0.005
_LOUDNESS = 0.08
_FADE = 0.03
# Share of a recorded syllable that is kept: within a phrase a third tone does not end
# in creaky voice, and a neutral tone is short.
_HALF_THIRD = 0.7
_SHORT = 0.6
_NEUTRAL_DB = -4.0
# Seconds: at a comma, at a full stop, at the beginning and end.
_PAUSES = {1: (0.12, 0.25), 2: (0.25, 0.4)}
_MARGIN = (0.08, 0.2)


@dataclass(frozen=True)
class Variation:
    """Random variation of utterances; all ranges are uniform.

    Attributes:
        tempo: of an utterance, ±share; it changes the pitch, too.
        syllable_tempo: of each syllable, an additional ±share.
        syllable_db: level of each syllable, ±dB.
        level_db: level of an utterance, ±dB.
        snr_db: lowest and highest signal-to-noise ratio, dB.
        colour: lowest and highest exponent b of the noise, whose power falls as 1/f^b.
    """

    tempo: float = 0.1
    syllable_tempo: float = 0.05
    syllable_db: float = 3.0
    level_db: float = 6.0
    snr_db: tuple[float, float] = (10.0, 30.0)
    colour: tuple[float, float] = (0.0, 2.0)


class Recordings:
    """The syllables of gcin, read from the Debian package without installing it.

    Raises:
        UserError: dpkg-deb is missing or cannot read the package.
    """

    def __init__(self, deb: Path) -> None:
        try:
            packed = subprocess.run(
                ["dpkg-deb", "--fsys-tarfile", str(deb)],
                check=True,
                capture_output=True,
            )
        except FileNotFoundError:
            raise UserError(
                f"{deb}: dpkg-deb, which opens it, is missing: install the package dpkg"
            ) from None
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().splitlines()
            raise UserError(f"{deb}: {said[-1] if said else error}") from None
        self._files: dict[tuple[str, str], bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as members:
            for member in members:
                path = Path(member.name)
                content = members.extractfile(member) if member.isreg() else None
                if content is not None and path.suffix == ".ogg":
                    self._files[path.parent.name, path.stem] = content.read()
        self._read: dict[tuple[str, str], np.ndarray] = {}

    def find(self, pinyin: str, other: str, after: str, voice: str) -> str | None:
        """The name of the recording for a syllable; None if there is none.

        Few syllables are recorded in the neutral tone. The fourth tone replaces it, or
        after a third tone the first, whose pitch is close to that of a neutral tone.
        Some syllables, such as ``wo2``, are not recorded in the tone after sandhi.

        Args:
            pinyin: the syllable with its tone; ``r5`` is a final 儿.
            other: the syllable with its dictionary tone, as a replacement.
            after: tone of the previous syllable, "" at the beginning.
            voice: "3" or "5".
        """
        syllable = "er5" if pinyin == "r5" else pinyin
        candidates = [syllable, other]
        if syllable[-1] == NEUTRAL:
            tones = "1423" if after == "3" else "4123"
            candidates[1:] = [syllable[:-1] + tone for tone in tones]
        for candidate in candidates:
            name = zhuyin(candidate)
            if name is not None and (name, voice) in self._files:
                return name
        return None

    def read(self, name: str, voice: str) -> np.ndarray:
        """One recording, trimmed and normalised in loudness: ``(samples,)`` float64 at
        ``RATE``.

        Raises:
            UserError: the file is not audio.
        """
        import soundfile

        key = name, voice
        if key not in self._read:
            try:
                wave, rate = soundfile.read(io.BytesIO(self._files[key]))
            except soundfile.LibsndfileError as error:
                raise UserError(f"recording {name}/{voice}.ogg: {error}") from None
            mono = wave if wave.ndim == 1 else wave.mean(axis=1)
            samples = round(len(mono) * RATE / rate)
            self._read[key] = _trimmed(stretched(mono, samples))
        return self._read[key]


def stretched(wave: np.ndarray, samples: int) -> np.ndarray:
    """Resample ``(n,)`` to ``(samples,)``: it changes tempo and pitch."""
    spectrum = np.fft.rfft(wave)
    return np.fft.irfft(spectrum, samples) * (samples / len(wave))


def _trimmed(wave: np.ndarray) -> np.ndarray:
    width = int(_FRAME * RATE)
    frames = wave[: len(wave) // width * width].reshape(-1, width)
    level = np.sqrt((frames**2).mean(axis=1))
    loud = np.flatnonzero(level > _SILENT * level.max())
    if not len(loud):
        raise UserError("a recording is silent")
    kept = wave[loud[0] * width : (loud[-1] + 1) * width]
    return kept * (_LOUDNESS / np.sqrt((kept**2).mean()))


def _shortened(wave: np.ndarray, share: float) -> np.ndarray:
    kept = wave[: int(len(wave) * share)].copy()
    fade = min(len(kept), int(2 * _FADE * RATE))
    kept[len(kept) - fade :] *= np.cos(np.linspace(0, np.pi / 2, fade)) ** 2
    return kept


def _joined(before: np.ndarray, wave: np.ndarray) -> np.ndarray:
    """``before`` and ``wave`` with a short cross-fade."""
    fade = min(int(_FADE * RATE), len(before), len(wave))
    rising = np.linspace(0.0, 1.0, fade)
    over = before[len(before) - fade :] * rising[::-1] + wave[:fade] * rising
    return np.concatenate([before[: len(before) - fade], over, wave[fade:]])


def _gain(decibel: float) -> float:
    return float(10 ** (decibel / 20))


def _noise(samples: int, colour: float, rng: np.random.Generator) -> np.ndarray:
    """``(samples,)`` of noise with unit power, falling as 1/f^colour above 50 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 50.0)
    noise = np.fft.irfft(spectrum * frequency ** (-colour / 2), samples)
    return noise / np.sqrt((noise**2).mean())


def _silence(seconds: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    return np.zeros(int(rng.uniform(*seconds) * RATE))


def seed_of(name: str) -> int:
    """A seed that depends on ``name`` only."""
    return int(hashlib.sha256(name.encode("utf-8")).hexdigest()[:16], 16)


def voice_sentence(
    recordings: Recordings,
    sentence: Sentence,
    voice: str = VOICE,
    variation: Variation | None = None,
    spans: list[tuple[int, int]] | None = None,
) -> np.ndarray | str:
    """Synthesise a sentence; the result depends on the arguments only.

    Args:
        recordings: of all syllables.
        sentence: the sentence.
        voice: "3" or "5".
        variation: random variation; None for the default.
        spans: this list receives, for each syllable, its first sample and the sample
            after its last; cross-faded neighbours overlap.

    Returns:
        ``(samples,)`` float64 at ``RATE``, within ±1; or the first syllable that this
        voice has not recorded.
    """
    vary = variation or Variation()
    rng = np.random.default_rng(seed_of(f"{voice} {sentence.name}"))
    tempo = 1 + vary.tempo * rng.uniform(-1, 1)
    speech = _silence(_MARGIN, rng)
    tone = ""
    for at, pinyin in enumerate(sentence.pinyin):
        name = recordings.find(pinyin, sentence.dictionary[at], tone, voice)
        if name is None:
            return pinyin
        wave = recordings.read(name, voice)
        tone, stop = pinyin[-1], sentence.stops[at]
        decibel = vary.syllable_db * rng.uniform(-1, 1)
        if tone == NEUTRAL:
            decibel += _NEUTRAL_DB
            if not name.endswith(_NEUTRAL_RECORDED_AS):
                wave = _shortened(wave, _SHORT)
        elif name.endswith("3") and not stop and at + 1 < len(sentence.pinyin):
            wave = _shortened(wave, _HALF_THIRD)
        speed = tempo * (1 + vary.syllable_tempo * rng.uniform(-1, 1))
        wave = stretched(wave, round(len(wave) / speed))
        speech = _joined(speech, wave * _gain(decibel))
        if spans is not None:
            spans.append((len(speech) - len(wave), len(speech)))
        if stop and at + 1 < len(sentence.pinyin):
            speech = _joined(speech, _silence(_PAUSES[stop], rng))
    speech = _joined(speech, _silence(_MARGIN, rng))
    noise = _noise(len(speech), rng.uniform(*vary.colour), rng)
    speech = speech + noise * _LOUDNESS * _gain(-rng.uniform(*vary.snr_db))
    speech = speech * _gain(vary.level_db * rng.uniform(-1, 1))
    return speech * min(1.0, 0.99 / np.abs(speech).max())
