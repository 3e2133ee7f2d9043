"""Which frames of a teacher a frame of the student learns, by their times.

Student frame k + ``delay`` learns the teacher at the centre of student frame k. Three
ways are possible:

``time``    linear interpolation of the two teacher frames around this time
``mean``    mean of the teacher frames that the student frame spans
``concat``  concatenation of the r teacher frames around this time; only if the student
            has exactly r times the stride of the teacher

A frame of the student has a target only if all these teacher frames exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device

MATCHES = ("time", "mean", "concat")
# Rounding of times, in teacher frames.
_TINY = 1e-6
# A teacher may be this much slower than the student: a hop of 220 samples at 11,025 Hz
# is 19.95 ms, where teachers have 20 ms.
_SLOWER = 1.01


@dataclass(frozen=True)
class Matches:
    """The N student frames of a batch that have a target.

    Attributes:
        utterances: Index b of the utterance, (N,) int64, ascending.
        frames: Index k of the frame in its utterance, (N,) int64.
        first: First row of the concatenated teacher frames, (N,) int64.
        counts: Number of rows, (N,) int64.
        weights: Weight of each row, (sum of counts,) float32; None to concatenate rows.
    """

    utterances: np.ndarray
    frames: np.ndarray
    first: np.ndarray
    counts: np.ndarray
    weights: np.ndarray | None

    def __len__(self) -> int:
        return len(self.frames)

    def targets(self, vectors: Tensor) -> Tensor:
        """Combine the vectors of all teacher frames.

        Args:
            vectors: Frames of all utterances, concatenated, (R, C) float32.

        Returns:
            (N, C), or (N, r·C) for concatenated frames.
        """
        begins = np.cumsum(self.counts) - self.counts
        steps = np.arange(int(self.counts.sum())) - np.repeat(begins, self.counts)
        rows = np.repeat(self.first, self.counts) + steps
        indices = on_device(rows, vectors.device)
        if self.weights is None:
            per_frame = int(self.counts[0]) if len(self) else 1
            taken = vectors.index_select(0, indices)
            return taken.view(len(self), per_frame * vectors.size(1))
        if not len(self):
            return vectors[:0]
        return torch.nn.functional.embedding_bag(
            indices,
            vectors,
            on_device(begins, vectors.device),
            mode="sum",
            per_sample_weights=on_device(self.weights, vectors.device),
        )


def check_delay(delay: object) -> None:
    """Check the number of frames by which a student lags its teacher.

    Raises:
        UserError: It is no integer, or negative.
    """
    if isinstance(delay, bool) or not isinstance(delay, int) or delay < 0:
        raise UserError(
            f"criterion_conf.delay is {delay!r}; give a number of frames, 0 or more"
        )


def check_strides(student: FrameTimes, teacher: FrameTimes, label: str) -> str:
    """Check that a teacher has at least as many frames as the student.

    Args:
        student: Times of the student's frames.
        teacher: Times of the teacher's frames.
        label: Name of the teacher in messages.

    Returns:
        Both strides in words.

    Raises:
        UserError: The teacher has fewer frames.
    """
    strides = (
        f"the student has a frame every {1000 * student.stride:.5g} ms, "
        f"{label} every {1000 * teacher.stride:.5g} ms"
    )
    if teacher.stride > student.stride * _SLOWER:
        raise UserError(
            f"{strides}: a teacher must not have fewer frames than the student; "
            "use a teacher with more frames, a later tap or more sub-sampling "
            "(input_layer, pooling_layers, hop_length)"
        )
    return strides


class TimeMatch:
    """Pairs of student frames and teacher frames.

    Args:
        kind: ``time``, ``mean`` or ``concat``.
        student: Times of the student's frames.
        teacher: Times of the teacher's frames.
        delay: Student frames; at least 0.
        label: Name of the teacher in messages.

    Attributes:
        factor: Width of a target in widths of a teacher frame.

    Raises:
        UserError: An option is wrong, the teacher has fewer frames than the student, or
            the ratio of the strides does not allow ``concat``.

    Example:
        >>> conv2d, whisper = FrameTimes(0.03, 0.04), FrameTimes(0.0, 0.02)
        >>> TimeMatch("time", conv2d, whisper).match([3], [9]).first.tolist()
        [1, 3, 5]
    """

    def __init__(
        self,
        kind: str,
        student: FrameTimes,
        teacher: FrameTimes,
        delay: int = 0,
        label: str = "the teacher",
    ):
        if kind not in MATCHES:
            raise UserError(
                f"criterion_conf.match is {kind!r}; use one of {', '.join(MATCHES)}"
            )
        check_delay(delay)
        strides = check_strides(student, teacher, label)
        ratio = student.stride / teacher.stride
        self.factor = round(ratio) if kind == "concat" else 1
        if kind == "concat" and abs(ratio - self.factor) > _TINY:
            raise UserError(
                f"criterion_conf.match: concat needs an integer ratio, but {strides}, "
                f"a ratio of {ratio:.6g}; use match: time or match: mean"
            )
        self.kind, self.student, self.teacher, self.delay = (
            kind,
            student,
            teacher,
            delay,
        )

    def match(
        self, student_lens: Sequence[int], teacher_lens: Sequence[int]
    ) -> Matches:
        """Pair the frames of a batch.

        Args:
            student_lens: Number of student frames of each of the B utterances.
            teacher_lens: Number of teacher frames of each utterance; 0 if the teacher
                lacks the utterance.
        """
        lengths = np.array(student_lens, dtype=np.int64)
        available = np.array(teacher_lens, dtype=np.int64)
        frames = np.arange(int(lengths.max(initial=0)))
        begin, end = self._spans(frames - self.delay)  # (T,) each
        valid = (frames < lengths[:, None]) & (end <= available[:, None])
        valid &= (frames >= self.delay) & (begin >= 0) & (end > begin)  # (B, T)
        utterances, chosen = np.nonzero(valid)
        first = np.cumsum(available) - available
        counts = (end - begin)[chosen]
        return Matches(
            utterances,
            chosen,
            first[utterances] + begin[chosen],
            counts,
            self._weights(chosen - self.delay, counts),
        )

    def _positions(self, frames: np.ndarray) -> np.ndarray:
        """Centres of student frames in teacher frames, float64."""
        seconds = self.student.offset + frames * self.student.stride
        return (seconds - self.teacher.offset) / self.teacher.stride

    def _spans(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First teacher frame of each student frame, and the frame after the last."""
        positions = self._positions(frames)
        if self.kind == "time":
            begin = np.floor(positions + _TINY)
            end = np.ceil(positions - _TINY) + 1
        elif self.kind == "mean":
            half = self.student.stride / self.teacher.stride / 2
            begin = np.ceil(positions - half - _TINY)
            end = np.ceil(positions + half - _TINY)
        else:
            zero = self._positions(np.zeros(1))[0]
            nearest = np.floor(zero - (self.factor - 1) / 2 + 0.5 + _TINY)
            begin = nearest + self.factor * frames
            end = begin + self.factor
        return begin.astype(np.int64), end.astype(np.int64)

    def _weights(self, frames: np.ndarray, counts: np.ndarray) -> np.ndarray | None:
        """Weights of the teacher frames of student frames, concatenated."""
        if self.kind == "concat":
            return None
        weights = np.repeat(1 / np.maximum(counts, 1), counts)
        if self.kind == "time":
            # One frame at its centre, or two frames around it.
            position = self._positions(frames)
            later = np.where(counts == 2, position - np.floor(position + _TINY), 1.0)
            last = np.cumsum(counts) - 1
            weights[last] = later
            weights[last[counts == 2] - 1] = 1 - later[counts == 2]
        return weights.astype(np.float32)
