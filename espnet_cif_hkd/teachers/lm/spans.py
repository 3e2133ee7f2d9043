"""Forced alignments: which label is spoken when, and at which frames.

Alignments are files in NIST's CTM format, ``utterance channel start duration label``
with an optional sixth field, in seconds. They do not depend on a frame rate.
"""

import logging
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import first_few
from espnet_cif_hkd.teachers.lm.lexicon import UNKNOWN

# Labels of pauses and noises. They are skipped unless the token list has them.
SILENCES = frozenset(
    ("SIL", "sil", "<sil>", "<eps>", "sp", "SPN", "spn", "NSN", "nsn", "+SPN+", "+NSN+")
)
# Seconds by which spans may overlap: CTM files are rounded.
_OVERLAP = 0.0051
# A larger share of unknown labels means another token list.
_MOST_UNKNOWN = 0.1
# Times are compared in steps of 0.1 ms: start + duration is not exact.
_STEPS = 1e4


class Alignments:
    """The spans of a CTM file, in arrays.

    Lines of an utterance follow each other, in the order of time. Comments, ``;;``, and
    labels of silence that are not in the token list are skipped. Other labels that are
    not in the token list become ``<unk>`` and are counted.

    Args:
        path: the CTM file.
        token_list: labels of the unit, in ESPnet's order.

    Raises:
        UserError: the file is missing, a line is wrong (the message has file and line),
            or many labels are not in the token list.

    Attributes:
        path: the file.
        n_unknown: number of spans with ``<unk>``.
    """

    def __init__(self, path: Path, token_list: Sequence[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(
                f"alignment {path} is missing: make it by "
                "python3 -m espnet_cif_hkd.cli.align_units"
            )
        self.n_unknown = 0
        # Utterance -> first span and number of spans.
        self._spans: dict[str, tuple[int, int]] = {}
        ids, times = self._read({token: i for i, token in enumerate(token_list)})
        self._ids = np.frombuffer(ids, dtype=np.int32)
        self._times = np.frombuffer(times, dtype=np.float32).reshape(-1, 2)

    def _read(self, known: dict[str, int]) -> tuple["array[int]", "array[float]"]:
        ids, times = array("i"), array("f")
        unknown, first_unknown = known.get(UNKNOWN, 1), ""
        current, begin, last_end, last_start = "", 0, 0.0, 0.0
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                fields = self._fields(line, number)
                if not fields:
                    continue
                utterance, _, start_field, duration_field, label = fields[:5]
                if utterance != current:
                    self._close(current, begin, len(ids))
                    if utterance in self._spans:
                        self._refuse(number, f"{utterance} occurs again: sort the file")
                    current, begin, last_end, last_start = utterance, len(ids), 0.0, 0.0
                start, duration = _seconds(start_field), _seconds(duration_field)
                if start is None or duration is None:
                    wrong = start_field if start is None else duration_field
                    self._refuse(number, f"{wrong} is not a number of seconds from 0")
                if start < max(last_start, last_end - _OVERLAP):
                    self._refuse(
                        number,
                        f"{label} begins at {start:g} s, before the end of the label "
                        f"above at {last_end:g} s: sort the file by utterance and time",
                    )
                last_start, last_end = start, start + duration
                i = known.get(label)
                if i is None and label in SILENCES:
                    continue
                if i is None or i == unknown:
                    i = unknown
                    self.n_unknown += 1
                    first_unknown = first_unknown or f"{label}, line {number}"
                ids.append(i)
                times.extend((start, last_end))
        self._close(current, begin, len(ids))
        if self.n_unknown > _MOST_UNKNOWN * len(ids):
            raise UserError(
                f"{self.path}: {self.n_unknown} of {len(ids)} labels are not in the "
                f"token list (the first is {first_unknown}): use the token list that "
                "belongs to this alignment"
            )
        if self.n_unknown:
            logging.warning(
                "%s: %d of %d labels are not in the token list and become <unk> (the "
                "first is %s)",
                *(self.path, self.n_unknown, len(ids), first_unknown),
            )
        return ids, times

    def _fields(self, line: bytes, number: int) -> list[str]:
        try:
            fields = line.decode("utf-8").split()
        except UnicodeDecodeError:
            self._refuse(number, "not UTF-8 text: convert the file to UTF-8")
        if not fields or fields[0].startswith(";;"):
            return []
        if not 5 <= len(fields) <= 6:
            self._refuse(
                number,
                f"{len(fields)} fields: write 'utterance 1 start duration label'",
            )
        return fields

    def _refuse(self, number: int, reason: str) -> NoReturn:
        raise UserError(f"{self.path}, line {number}: {reason}")

    def _close(self, utterance: str, begin: int, end: int) -> None:
        if utterance:
            self._spans[utterance] = (begin, end - begin)

    def __len__(self) -> int:
        return len(self._spans)

    def get(self, utt_id: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the labels of an utterance.

        Returns:
            Ids ``(N,)`` int64, and their starts and ends in seconds ``(N, 2)`` float32;
            None if the utterance has no alignment.
        """
        found = self._spans.get(utt_id)
        if found is None:
            return None
        part = slice(found[0], found[0] + found[1])
        return self._ids[part].astype(np.int64), self._times[part]

    def sequences(self) -> Iterator[list[int]]:
        """Yield the ids of all utterances, in the order of the file."""
        for begin, size in self._spans.values():
            yield self._ids[begin : begin + size].tolist()

    def require(
        self, utterances: Iterable[str], max_missing: float, option: str
    ) -> int:
        """Check that most utterances have an alignment.

        Args:
            utterances: names of utterances.
            max_missing: largest accepted share of utterances without one, in percent.
            option: name of the option with that number, for the message.

        Returns:
            Number of utterances without an alignment; it is logged.

        Raises:
            UserError: the share is larger.
        """
        names = list(utterances)
        missing = [name for name in names if name not in self._spans]
        require_aligned(missing, len(names), max_missing, option, str(self.path))
        return len(missing)


def require_aligned(
    missing: Sequence[str], total: int, max_missing: float, option: str, place: str
) -> None:
    """Check the number of utterances without alignment; see :meth:`Alignments.require`.

    Raises:
        UserError: more than ``max_missing`` percent are missing.
    """
    if not missing:
        return
    text = f"{place}: {len(missing)} of {total} utterances have no alignment"
    if len(missing) > max_missing / 100 * total:
        raise UserError(
            f"{text} ({first_few(missing)}), more than {max_missing:g} %: align them, "
            f"or raise {option}"
        )
    logging.warning("%s (%s)", text, first_few(missing))


def _seconds(field: str) -> float | None:
    try:
        value = float(field)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def units_of_frames(times: Tensor, frame_times: FrameTimes, n_frames: int) -> Tensor:
    """Return the span at the centre of each frame.

    A span contains its start and not its end. Times are compared in steps of 0.1 ms.

    Args:
        times: starts and ends of N spans in seconds, sorted; ``(N, 2)``.
        frame_times: times of the frames.
        n_frames: number of frames T.

    Returns:
        Index of the span of each frame, -1 for a frame in none; ``(T,)`` int64, on the
        device of ``times``.
    """
    centres = frame_times.centres(torch.arange(n_frames, device=times.device))
    if not len(times):
        return torch.full((n_frames,), -1, device=times.device)
    steps = (times.double() * _STEPS).round().long()
    at = (centres * _STEPS).round().long()
    starts, ends = steps[:, 0].contiguous(), steps[:, 1]
    index = torch.searchsorted(starts, at, right=True) - 1
    inside = (index >= 0) & (at < ends[index.clamp(min=0)])
    return torch.where(inside, index, -1)


def ctm_lines(utterance: str, labels: Iterable[tuple[float, float, str]]) -> str:
    """Return CTM lines of an utterance.

    Args:
        utterance: its name.
        labels: start and duration in seconds, and the name, of each label.
    """
    return "".join(
        f"{utterance} 1 {start:.4f} {duration:.4f} {label}\n"
        for start, duration, label in labels
    )
