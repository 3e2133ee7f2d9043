"""A stronger transducer teaches a transducer along its own best path.

Source: Yang, Li and Woodland, arXiv 2110.03334, use the distributions of the teacher at
the nodes of its one-best path instead of those of the complete lattice. Nodes of
teachers with another frame rate, ``delay`` by frames of the student, and ``top_k`` are
ours.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.distill.criterion import (
    AbsDistillCriterion,
    CheckContext,
    DistillOutput,
)
from espnet_cif_hkd.distill.frame_options import (
    check_training,
    number,
    refuse_time_warp,
)
from espnet_cif_hkd.distill.taps import Student, Taps, require_taps
from espnet_cif_hkd.distill.time_matching import check_delay, check_strides
from espnet_cif_hkd.distill.transducer_teacher import TransducerTeacher, rows_of
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.rnnt_path import (
    LatticePath,
    path_distillation_loss,
    soft_labels,
)

# Rounding of times, in frames.
_TINY = 1e-6


class TransducerPathCriterion(AbsDistillCriterion):
    """The student learns the teacher's distributions along the teacher's best path.

    For each utterance the frozen teacher reads the audio and the transcript, and finds
    the most probable path that emits the transcript. At each node of it the loss
    ``loss_path`` is the cross-entropy of the student's distribution under the
    teacher's: the sum over the nodes, like the transducer loss. Statistics are
    ``kl_path``, the mean over nodes of the Kullback-Leibler divergence, 0 for a student
    like the teacher, and ``acc_path``, the share of nodes where both have the same most
    probable token.

    Only ``model: transducer`` has the taps. The student computes logits of these nodes
    only, so the memory is that of frames + tokens, not frames x tokens.

    Args:
        student: The recogniser.
        teacher: A trained transducer with the token list of the student: the folder of
            its training, or one checkpoint beside its ``config.yaml``. In a folder it
            is ``valid.acc.ave.pth``, ``valid.loss.ave.pth``, or the only one. Training
            needs it, decoding does not.
        weight: Factor of the loss, beside that of the transducer.
        temperature: Divisor of the logits of both. The loss is not multiplied by its
            square.
        top_k: Number of the teacher's largest probabilities that are kept, scaled to
            sum 1; null: all.
        delay: Number of frames by which the student lags the teacher, for a streaming
            student.

    Raises:
        UserError: An option is wrong, the times of the student's frames are unknown, or
            SpecAugment warps time.
    """

    wants = frozenset({"hs_pad", "joint", "speech", "states:output"})

    def __init__(
        self,
        student: Student,
        teacher: str,
        weight: float = 1.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        delay: int = 0,
    ):
        super().__init__()
        self.weight = number("criterion_conf.weight", weight)
        self.temperature = number("criterion_conf.temperature", temperature)
        if top_k is not None and (type(top_k) is not int or top_k < 1):
            raise UserError(
                f"criterion_conf.top_k is {top_k!r}; give a number of tokens, 1 or "
                "more, or null for all"
            )
        check_delay(delay)
        self.top_k, self.delay = top_k, delay
        refuse_time_warp(student.time_warp)
        require_taps(student.label, self.wants, student.sizes, student.model)
        self._times, self._rate = _times_of(student)
        self._tokens = student.token_list
        self._place = teacher
        # No module: the teacher is in no checkpoint.
        self._teacher: tuple[TransducerTeacher, FrameTimes] | None = None

    @classmethod
    def check(cls, conf: Mapping[str, Any], context: CheckContext) -> list[str]:
        """Check the options, the augmentation and the teacher."""
        super().check(conf, context)
        cls.check_training(conf, context.training)
        if context.token_list is not None:
            TransducerTeacher(conf["teacher"]).check_tokens(context.token_list)
        return []

    @classmethod
    def check_training(
        cls, conf: Mapping[str, Any], training: Mapping[str, Any]
    ) -> None:
        """Refuse a time warp, and a teacher that is missing or does not fit."""
        check_training([], training)
        teacher = TransducerTeacher(conf.get("teacher"))
        tokens = training.get("token_list")
        if isinstance(tokens, str) and Path(tokens).is_file():
            lines = Path(tokens).read_text(encoding="utf-8").splitlines()
            tokens = [line.rstrip() for line in lines]
        if isinstance(tokens, list | tuple):
            teacher.check_tokens(tokens)
        stride = 1000 * teacher.times.stride  # opens the model
        logging.info("%s has a frame every %.5g ms", teacher.label, stride)

    @classmethod
    def teacher_files(cls, conf: Mapping[str, Any]) -> list[Path]:
        """Return checkpoint and configuration; other files of the folder may change."""
        try:
            return list(TransducerTeacher(conf.get("teacher")).files)
        except UserError:  # the checks before the training report it
            return []

    def forward(self, taps: Taps) -> DistillOutput:
        """Return ``loss_path``; see :class:`AbsDistillCriterion`.

        Raises:
            UserError: The teacher is not on this machine, or does not fit the student.
        """
        assert taps.speech is not None and taps.speech_lengths is not None
        assert taps.joint is not None
        teacher, times = self._opened()
        taught = teacher.best_path(
            taps.speech, taps.speech_lengths, taps.ys_pad, taps.ys_pad_lens
        )
        path = taught.path
        frames, kept = student_nodes(path, times, self._times, taps.hlens, self.delay)
        # The host waits for the device here, for the number of nodes.
        utterances, nodes = kept.nonzero(as_tuple=True)
        chosen = utterances, nodes
        tokens = path.tokens[chosen]
        theirs = taught.logits(utterances, path.frames[chosen], tokens)
        logits = taps.joint(
            rows_of(taps.hs_pad, utterances, frames[chosen]),
            rows_of(taps.states["output"], utterances, tokens),
        )
        labels, ids = soft_labels(theirs, self.temperature, self.top_k)
        losses = path_distillation_loss(logits, labels, ids, self.temperature)
        entropy = -torch.xlogy(labels, labels).sum(-1)
        count = max(1, len(losses))
        agree = logits.detach().argmax(-1) == theirs.argmax(-1)
        return DistillOutput(
            losses={"loss_path": losses.sum()},
            weights={"loss_path": self.weight},
            stats={
                "kl_path": (losses.detach() - entropy).sum() / count,
                "acc_path": agree.sum() / count,
            },
        )

    def _opened(self) -> tuple[TransducerTeacher, FrameTimes]:
        """Return the teacher and the times of its frames; check both once."""
        if self._teacher is None:
            teacher = TransducerTeacher(self._place)
            teacher.check_tokens(self._tokens)
            if teacher.rate != self._rate:
                raise UserError(
                    f"{teacher.label}: reads audio of {teacher.rate} Hz, but the "
                    f"student's is {self._rate} Hz; use a teacher for "
                    f"{self._rate} Hz"
                )
            check_strides(self._times, teacher.times, teacher.label)
            self._teacher = teacher, teacher.times
        return self._teacher


def student_nodes(
    path: LatticePath,
    teacher: FrameTimes,
    student: FrameTimes,
    hlens: Tensor,
    delay: int = 0,
) -> tuple[Tensor, Tensor]:
    """Move the nodes of a teacher's path to the frames of a student.

    A node moves to the student's frame that is nearest in time. If several frames of
    the teacher move to one of the student, the student's path has the tokens of all,
    and the blank of the last only.

    Args:
        path: The teacher's path, N nodes.
        teacher, student: Times of the frames.
        hlens: Frames of the student, (B,) integer.
        delay: Frames of the student that are added. Nodes after the last frame move to
            the last frame.

    Returns:
        The student's frame of each node, (B, N) int64, and whether the node is on the
        student's path, (B, N) bool.

    Example:
        >>> node = torch.tensor([[0, 1, 1, 2]])
        >>> emits = torch.tensor([[False, True, False, False]])
        >>> ends = torch.tensor([4]), torch.zeros(1)
        >>> path = LatticePath(node, torch.tensor([[0, 0, 1, 1]]), emits, *ends)
        >>> fast, slow = FrameTimes(0.01, 0.02), FrameTimes(0.02, 0.04)
        >>> student_nodes(path, fast, slow, torch.tensor([2]))
        (tensor([[0, 0, 0, 1]]), tensor([[False,  True,  True,  True]]))
    """
    places = (teacher.centres(path.frames) - student.offset) / student.stride
    frames = (places + 0.5 + _TINY).floor().long() + delay
    frames = torch.minimum(frames.clamp(min=0), hlens.to(frames)[:, None] - 1)
    valid = path.valid
    following = torch.nn.functional.pad(valid[:, 1:], (0, 1))
    moves = torch.nn.functional.pad(frames[:, 1:] > frames[:, :-1], (0, 1))
    return frames, valid & (path.emits | moves | ~following)


def _times_of(student: Student) -> tuple[FrameTimes, int]:
    """Return the times of the student's frames and its sampling rate.

    Raises:
        UserError: They are unknown.
    """
    times, rate = student.timing.get("hs_pad"), student.rate
    if times is None or rate is None:
        raise UserError(
            f"{student.label}: the times of the student's encoder frames are unknown, "
            "so they cannot be matched with the teacher's: use 'frontend: default' and "
            "an encoder with a convolutional input layer, without a postencoder"
        )
    return times, rate
