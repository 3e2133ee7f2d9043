"""Forced alignment of English speech by pocketsphinx and the model in its package.

The model is for 16 kHz and has 39 phones of ARPAbet, with three states each.
"""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.audio import resample
from espnet_cif_hkd.teachers.lm.lexicon import UNKNOWN, Lexicon
from espnet_cif_hkd.teachers.lm.pronounce import ARPABET, unstressed

RATE = 16000
# Version of the alignments: raise it when a change of this module changes them.
VERSION = 1
_PEAK = 20000
# Wide and equal beams: a path is found wherever one exists.
_BEAM = 1e-120
# pocketsphinx counts scores in logarithms to this base, divided by 1024.
_NATS = 1024 * math.log(1.0001)

State = tuple[str, int]


class NoAlignmentError(Exception):
    """An utterance cannot be aligned; the message is the reason."""


@dataclass(frozen=True)
class AlignedPhone:
    """A phone of an utterance.

    Attributes:
        label: the phone, as the lexicon names it.
        start: its first frame.
        states: name and number of frames of each state.
    """

    label: str
    start: int
    states: tuple[State, ...]

    @property
    def duration(self) -> int:
        """Number of frames."""
        return sum(frames for _, frames in self.states)


@dataclass(frozen=True)
class AlignedUtterance:
    """The phones of an utterance, without silences.

    Attributes:
        phones: in the order of the words' first pronunciations.
        score: mean log-likelihood of a frame, in nats, relative to the best state of
            the frame.
    """

    phones: tuple[AlignedPhone, ...]
    score: float


def check_phones(lexicon: Lexicon) -> None:
    """Check that the model has all phones of a lexicon.

    Raises:
        UserError: it does not.
    """
    other = [p for p in lexicon.phones if unstressed([p])[0] not in ARPABET]
    if other:
        raise UserError(
            f"{lexicon.path}: {other[0]} is no phone of pocketsphinx's English model "
            f"({', '.join(ARPABET)}): make the lexicon by make_lexicon --source cmudict"
        )


class Aligner:
    """Aligns utterances with the first pronunciations of a lexicon.

    The phones of an alignment are those that the unit ``lexicon`` gives for the same
    text. The result depends on the utterance only, not on the ones before.

    Args:
        lexicon: the pronunciations; see :func:`check_phones`.

    Raises:
        UserError: pocketsphinx is not installed.

    Attributes:
        stride: seconds from one frame to the next.
        offset: seconds from the start of the recording to the start of frame 0: frames
            are centred in windows that are wider than ``stride``.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        # Words are named by their pronunciation: pocketsphinx reads some characters of
        # a word in a special way.
        pronunciations = dict.fromkeys(map(unstressed, lexicon.entries.values()))
        self._names = {phones: f"p{n}" for n, phones in enumerate(pronunciations)}
        lines = (f"{name} {' '.join(ph)}\n" for ph, name in self._names.items())
        with tempfile.TemporaryDirectory() as folder:
            dictionary = Path(folder) / "dictionary"
            dictionary.write_text("".join(lines), encoding="utf-8")
            self._decoder = _decoder(str(dictionary))
        self.stride = 1 / self._decoder.config["frate"]
        self.offset = (self._decoder.config["wlen"] - self.stride) / 2

    def pronunciation(self, text: str) -> list[tuple[str, ...]]:
        """Return the phones of each word of a text.

        Raises:
            NoAlignmentError: a word has no pronunciation, or there are no words.
        """
        words = list(self._lexicon.words(text))
        found = [self._lexicon.find(word) for word in words]
        for word, phones in zip(words, found):
            if not phones:
                reason = "an unknown word" if UNKNOWN in word else f"the word {word}"
                raise NoAlignmentError(f"{reason} has no pronunciation")
        if not found:
            raise NoAlignmentError("it has no words")
        return [phones for phones in found if phones]

    def __call__(self, text: str, samples: np.ndarray, rate: int) -> AlignedUtterance:
        """Align an utterance.

        Args:
            text: its transcript.
            samples: (S,) float; full scale is 1.
            rate: sampling rate in Hz.

        Raises:
            NoAlignmentError: a word has no pronunciation, or pocketsphinx finds no
                alignment, such as for speech that is too short for its phones.
        """
        words = self.pronunciation(text)
        names = [self._names[unstressed(phones)] for phones in words]
        samples = resample(np.asarray(samples, dtype=np.float64), rate, RATE)
        if not len(samples):
            raise NoAlignmentError("it has no audio")
        peak = max(float(np.abs(samples).max()), 1e-3)
        pcm = np.rint(samples * (_PEAK / peak)).astype("<i2").tobytes()
        decoder = self._decoder
        try:
            decoder.set_align_text(" ".join(names))
            self._process(pcm)
            self._check([s.word for s in decoder.seg() or ()], names)
            decoder.set_alignment()  # the second pass finds phones and states
            self._process(pcm)
            aligned = _copied(decoder.get_alignment())
        except RuntimeError as error:
            raise NoAlignmentError("pocketsphinx finds no alignment") from error
        self._check([name for name, _ in aligned], names)
        found = [phones for name, phones in aligned if _is_word(name)]
        phones = tuple(_phones(words, found))
        frames = sum(phone.duration for phone in phones)
        score = sum(one.score for word in found for one in word)
        return AlignedUtterance(phones, score * _NATS / frames)

    def _process(self, pcm: bytes) -> None:
        # Otherwise the mean of the cepstra depends on what was decoded before.
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()

    @staticmethod
    def _check(found: list[str], names: list[str]) -> None:
        """Check the words: pocketsphinx may return silence, or part of the words."""
        if [name for name in found if _is_word(name)] != names:
            raise NoAlignmentError("pocketsphinx finds no alignment")


def _decoder(dictionary: str) -> Any:
    try:
        from pocketsphinx import Decoder
    except ImportError as error:
        raise UserError(
            "forced alignment needs pocketsphinx; run: python3 -m pip install "
            "pocketsphinx"
        ) from error
    # With bestpath, phones may get fewer frames than they have states.
    return Decoder(
        lm=None,
        dict=dictionary,
        samprate=RATE,
        cmn="batch",
        bestpath=False,
        beam=_BEAM,
        wbeam=_BEAM,
        pbeam=_BEAM,
        loglevel="FATAL",
    )


def _is_word(name: str) -> bool:
    return name.startswith("p")  # others are <sil>, <s>, </s> and [NOISE]


@dataclass(frozen=True)
class _Phone:
    """A phone as pocketsphinx reports it."""

    start: int
    duration: int
    score: int
    states: tuple[State, ...]


def _copied(alignment: Any) -> list[tuple[str, list[_Phone]]]:
    """Return the words of an alignment; its entries do not outlive it."""
    return [
        (
            word.name,
            [
                _Phone(
                    phone.start,
                    phone.duration,
                    phone.score,
                    tuple((state.name, state.duration) for state in phone),
                )
                for phone in word
            ],
        )
        for word in alignment or ()
    ]


def _phones(
    words: list[tuple[str, ...]], found: list[list[_Phone]]
) -> Iterator[AlignedPhone]:
    for labels, phones in zip(words, found, strict=True):
        if len(labels) != len(phones):
            raise NoAlignmentError("pocketsphinx finds no alignment")
        for label, one in zip(labels, phones):
            phone = AlignedPhone(label, one.start, one.states)
            if phone.duration != one.duration or any(n < 1 for _, n in one.states):
                raise NoAlignmentError("pocketsphinx finds no alignment")
            yield phone
