"""Speech from single recorded syllables: the recordings, and how they are joined."""

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

# Recordings end in silence of different length; below this share of their loudest
# 5 ms they are cut off.
_SILENT = 0.03
_FRAME = 0.005
_LOUDNESS = 0.08
_FADE = 0.03
# Shares of a syllable that was spoken alone: within a phrase a third tone does not
# creak to its end, and a neutral tone is short.
_HALF_THIRD = 0.7
_SHORT = 0.6
_NEUTRAL_DB = -4.0
# Seconds: at a comma, at a full stop, at both ends.
_PAUSES = {1: (0.12, 0.25), 2: (0.25, 0.4)}
_MARGIN = (0.08, 0.2)


@dataclass(frozen=True)
class Variation:
    """How much utterances of one sentence would differ; ranges are uniform.

    Attributes:
        tempo: of an utterance, ±share; pitch goes with it.
        syllable_tempo: of each syllable, ±share on top of it.
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
    """gcin's syllables, read from the Debian package without installing it.

    Raises:
        UserError: there is no dpkg-deb, or it cannot read the package.
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
                f"{deb}: dpkg-deb is needed to open it: install the package dpkg"
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
        """Name the recording for a syllable, or None if there is none.

        Few syllables are recorded in the neutral tone. Others are taken in the fourth,
        or in the first after a third, which is about where a neutral tone lies. Some
        are not recorded in the tone that sandhi gives them, such as ``wo2``.

        Args:
            pinyin: the syllable with its tone; ``r5`` is a final 儿.
            other: the same with its dictionary tone, for want of that.
            after: tone of the syllable before, "" at the beginning.
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
        """One recording without its silent ends, ``(samples,)`` float64 at ``RATE``,
        at one loudness.

        Raises:
            UserError: it is no sound.
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
    """Resample ``(n,)`` to ``(samples,)``, which changes tempo and pitch alike."""
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
    """Speak a sentence, the same way whenever it is asked for.

    Args:
        recordings: of all syllables.
        sentence: what is said.
        voice: "3" or "5".
        variation: how much utterances differ.
        spans: gets the first sample of each syllable and the one behind its last;
            neighbours overlap where they are cross-faded.

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
