"""Speech teachers on encoder frames: the student predicts their features.

Source: Yang et al., arXiv 2303.10917: an encoder is trained to predict the embeddings
of several speech foundation models. The abstract gives neither loss nor architecture;
heads, normalisation and the matching of frames are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.distill.criterion import (
    AbsDistillCriterion,
    CheckContext,
    DistillOutput,
)
from espnet_cif_hkd.distill.frame_options import (
    TeacherOptions,
    check_choices,
    check_training,
    number,
    refuse_time_warp,
    teacher_options,
)
from espnet_cif_hkd.distill.frame_statistics import TargetStatistics
from espnet_cif_hkd.distill.heard import (
    check_length,
    flat_rows,
    heard,
    pairs_of_host,
)
from espnet_cif_hkd.distill.taps import Student, Taps, require_taps
from espnet_cif_hkd.distill.time_matching import TimeMatch
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.frames import frame_losses
from espnet_cif_hkd.teachers.source import local_folder
from espnet_cif_hkd.teachers.speech.base import Recording, SpeechTeacher
from espnet_cif_hkd.teachers.speech.registry import build_speech_teacher
from espnet_cif_hkd.teachers.speech.stored import StoredSpeechTeacher

_VALIDATION_SEED = 0
# Utterances that are looked up before a store without any of them is refused.
_ENOUGH = 100


@dataclass
class _Aim:
    """What one head learns in a batch.

    Attributes:
        utterances, frames: Places of the N student frames, (N,) int64 each.
        targets: (N, C), normalised.
        trivial: Best constant prediction, (C,) or (N, C).
    """

    utterances: np.ndarray
    frames: np.ndarray
    targets: Tensor
    trivial: Tensor

    def taken(self, rows: np.ndarray) -> "_Aim":
        """Return some of the rows."""
        index = torch.from_numpy(rows).to(self.targets.device)
        trivial = self.trivial.expand_as(self.targets)[index]
        return _Aim(
            self.utterances[rows], self.frames[rows], self.targets[index], trivial
        )


class FramesCriterion(AbsDistillCriterion):
    """Linear heads on encoder frames predict the frames of speech teachers.

    Each loss is a sum over student frames with a target. The log has, for each teacher
    NAME: ``loss_NAME``; ``loss_trivial_NAME``, the loss of the best constant
    prediction, which a trained student must beat; ``explained_NAME``, 1 - variance of
    the error / variance of the targets; ``cosine_NAME``, the mean cosine of prediction
    and target; ``coverage_NAME``, the share of frames with a target; ``missing_NAME``,
    the share of utterances that the teacher lacks.

    Args:
        student: The recogniser.
        teachers: The teachers by a name of your choice; null leaves one out, as
            ``--model_conf criteria.speech.teachers.tiny=null`` does. Each has the
            options of a speech teacher (``teacher``, ``layer``, ``teacher_store``, …),
            and ``weight`` (1.0), the weight of its loss, and ``normalize`` (true):
            targets are normalised to mean 0 and variance 1 per dimension, by statistics
            of the store.
        tap: Frames that learn: ``hs_pad`` or ``layer:N``.
        loss: ``l1`` or ``l2``, means over the dimensions; ``cosine``, 1 - cosine;
            ``l1_cosine``, the sum of two.
        combine: ``heads``: a head and a loss for each teacher. ``average``: one head
            learns the weighted mean of the teachers' targets. ``random``: one head
            learns one teacher in each utterance, drawn with the weights as
            probabilities. The last two need teachers of equal width.
        match: ``time``: linear interpolation of teacher frames at the centre of the
            student's frame. ``mean``: mean of the teacher frames in the span of the
            student's frame. ``concat``: concatenation of r teacher frames, if the
            student's stride is exactly r times the teacher's.
        delay: Number of frames by which the student lags the teacher, for a streaming
            student.
        ignore_missing: Whether an utterance that a teacher's store lacks is left out of
            this teacher's loss; otherwise it is an error.
        weight: Factor of all losses, beside the loss of a recogniser.

    Raises:
        UserError: An option is unknown, missing or out of range, a teacher has fewer
            frames than the student, or SpecAugment warps time.
    """

    def __init__(
        self,
        student: Student,
        teachers: Mapping[str, Any],
        tap: str = "hs_pad",
        loss: str = "l1",
        combine: str = "heads",
        match: str = "time",
        delay: int = 0,
        ignore_missing: bool = False,
        weight: float = 1.0,
    ):
        super().__init__()
        check_choices(tap, loss, combine, match)
        self.weight = number("criterion_conf.weight", weight)
        self.options = teacher_options(teachers)
        self.tap, self.loss, self.combine = tap, loss, combine
        self.ignore_missing = ignore_missing
        self.wants = frozenset({tap, "speech"})
        require_taps(student.label, self.wants, student.sizes, student.model)
        refuse_time_warp(student.time_warp)
        times = student.timing.get(tap)
        if student.rate is None or times is None:
            raise UserError(
                f"criterion_conf.tap {tap}: the times of its frames are unknown for "
                "this frontend and encoder; use 'frontend: default' and an encoder "
                "with a convolutional input layer, or another tap"
            )
        self._rate: int = student.rate
        self._teachers: dict[str, SpeechTeacher] = {}
        self._matches: dict[str, TimeMatch] = {}
        self._looked_up: dict[str, tuple[int, int]] = {}
        self.statistics = torch.nn.ModuleDict()
        self.heads = torch.nn.ModuleDict()
        self._absent = next(filter(None, map(_absent, self.options)), None)
        if self._absent is not None:
            return  # decoding needs no teacher, and a training refuses the first batch
        for one in self.options:
            built = _build(one)
            if one.rate != student.rate:
                raise UserError(
                    f"criterion_conf.teachers.{one.name}: its rate is {one.rate}, but "
                    f"the frontend reads audio of {student.rate} Hz; set rate: "
                    f"{student.rate}"
                )
            self._teachers[one.name] = built
            self._matches[one.name] = TimeMatch(
                match, times, built.times, delay, f"teacher {one.name}"
            )
            self.statistics[one.name] = TargetStatistics(
                built.payload.width, one.normalize, loss in ("l1", "l1_cosine")
            )
        self.heads = torch.nn.ModuleDict(
            {
                name: torch.nn.Linear(student.size(tap), width)
                for name, width in self._head_widths().items()
            }
        )

    def _head_widths(self) -> dict[str, int]:
        widths = {
            name: teacher.payload.width * self._matches[name].factor
            for name, teacher in self._teachers.items()
        }
        if self.combine == "heads":
            return widths
        if len(set(widths.values())) > 1:
            listed = ", ".join(f"{name} has {width}" for name, width in widths.items())
            raise UserError(
                f"criterion_conf.combine: {self.combine} needs teachers of equal width,"
                f" but {listed}; use combine: heads"
            )
        return {self.combine: max(widths.values())}

    @classmethod
    def check(cls, conf: Mapping[str, Any], context: CheckContext) -> list[str]:
        """Check the options, the augmentation and the teachers."""
        super().check(conf, context)
        tap = conf.get("tap", "hs_pad")
        check_choices(
            tap,
            conf.get("loss", "l1"),
            conf.get("combine", "heads"),
            conf.get("match", "time"),
        )
        if context.taps is not None:
            wanted = {str(tap), "speech"}
            require_taps("criterion frames", wanted, context.taps, context.model)
        cls.check_training(conf, context.training)
        return []

    @classmethod
    def check_training(
        cls, conf: Mapping[str, Any], training: Mapping[str, Any]
    ) -> None:
        """Refuse augmentation that does not fit the targets, and missing teachers."""
        teachers = teacher_options(conf.get("teachers"))
        check_training(teachers, training)
        for one in teachers:
            _build(one, stored=False, timed=not one.store)

    @classmethod
    def speech_teachers(cls, conf: Mapping[str, Any]) -> Mapping[str, dict[str, Any]]:
        """Return the options of each teacher."""
        return {one.name: one.conf for one in teacher_options(conf.get("teachers"))}

    def forward(self, taps: Taps) -> DistillOutput:
        """Return the losses of all teachers; see :class:`AbsDistillCriterion`.

        Raises:
            UserError: A teacher is not on this machine, or lacks a recording.
        """
        if self._absent is not None:
            raise self._absent
        frames, lengths = taps.hs_pad, taps.hlens
        if self.tap != "hs_pad":
            layer = int(self.tap.removeprefix("layer:"))
            frames, lengths = taps.layers[layer], taps.layer_lens[layer]
        assert taps.speech_lengths is not None
        # The host waits for the device here, to look the recordings up.
        n_frames, n_samples = pairs_of_host(lengths, taps.speech_lengths)
        recordings = heard(taps.speech, n_samples, self._rate, taps.utt_ids)
        output = DistillOutput()
        aims = {
            one.name: self._aim(one, recordings, n_frames, frames, output)
            for one in self.options
        }
        if self.combine == "average":
            aims = {"average": self._averaged(aims)}
        elif self.combine == "random":
            aims = {"random": self._drawn(aims, len(recordings))}
        total = max(1, sum(n_frames))
        for name, aim in aims.items():
            self._add(name, aim, frames, output)
            output.stats[f"coverage_{name}"] = len(aim.frames) / total
        return output

    def _aim(
        self,
        one: TeacherOptions,
        recordings: list[Recording],
        n_frames: list[int],
        frames: Tensor,
        output: DistillOutput,
    ) -> _Aim:
        """Return the targets of one teacher; log the utterances that it lacks."""
        teacher, name = self._teachers[one.name], one.name
        statistics = self.statistics[name]
        assert isinstance(statistics, TargetStatistics)
        statistics.prepare(teacher, name)
        vectors = self._vectors(name, recordings, frames.device)
        counts = [0 if rows is None else len(rows) for rows in vectors]
        for recording, rows in zip(recordings, vectors, strict=True):
            if rows is not None:
                check_length(recording, len(rows), teacher.times, name)
        matches = self._matches[name].match(n_frames, counts)
        width = teacher.payload.width
        nothing = torch.zeros(0, width, device=frames.device)
        joined = torch.cat([nothing, *(rows for rows in vectors if rows is not None)])
        targets = statistics.normalized(matches.targets(joined))
        missing = sum(rows is None for rows in vectors)
        output.stats[f"missing_{name}"] = missing / max(1, len(vectors))
        trivial = statistics.trivial(targets)
        return _Aim(matches.utterances, matches.frames, targets, trivial)

    def _vectors(
        self, name: str, recordings: list[Recording], device: torch.device
    ) -> list[Tensor | None]:
        """Return the features of each recording, (T_b, C); None if it has none.

        Raises:
            UserError: A recording has none and may not lack them, or the store has none
                of many recordings.
        """
        teacher = self._teachers[name]
        if not (self.ignore_missing and isinstance(teacher, StoredSpeechTeacher)):
            return list(teacher.features(recordings, device))
        keys = [teacher.key(recording) for recording in recordings]
        vectors = teacher.features_by_key(keys, device)
        seen, found = self._looked_up.get(name, (0, 0))
        seen += len(vectors)
        found += sum(rows is not None for rows in vectors)
        self._looked_up[name] = seen, found
        if seen >= _ENOUGH and not found:
            raise UserError(
                f"teacher {name}: its store {teacher.folder} has none of the first "
                f"{seen} utterances, such as {recordings[0].name}; fill it with the "
                "audio of this training, and do not change the audio on the fly"
            )
        return vectors

    def _averaged(self, aims: dict[str, _Aim]) -> _Aim:
        """Return the weighted mean of all teachers, where all have targets."""
        common = _places(next(iter(aims.values())))
        for aim in aims.values():
            common = np.intersect1d(common, _places(aim), assume_unique=True)
        scale = sum(one.weight for one in self.options)
        parts = []
        for one in self.options:
            places = _places(aims[one.name])
            parts.append(aims[one.name].taken(np.searchsorted(places, common)))
        shares = [one.weight / scale for one in self.options]
        targets = sum(s * part.targets for s, part in zip(shares, parts, strict=True))
        trivial = sum(s * part.trivial for s, part in zip(shares, parts, strict=True))
        assert isinstance(targets, Tensor) and isinstance(trivial, Tensor)
        return _Aim(parts[0].utterances, parts[0].frames, targets, trivial)

    def _drawn(self, aims: dict[str, _Aim], n_batch: int) -> _Aim:
        """Return one teacher's targets for each utterance, drawn among those it has."""
        generator = None
        if not self.training:
            generator = torch.Generator().manual_seed(_VALIDATION_SEED)
        chances = torch.zeros(n_batch, len(self.options))
        for n, one in enumerate(self.options):
            chances[np.unique(aims[one.name].utterances), n] = one.weight
        # Largest of log(weight) + Gumbel noise; all -inf: no teacher has the utterance.
        noise = torch.rand(chances.shape, generator=generator).clamp(min=1e-12)
        chosen = (chances.log() - (-noise.log()).log()).argmax(1).numpy()
        parts = []
        for n, one in enumerate(self.options):
            rows = np.flatnonzero(chosen[aims[one.name].utterances] == n)
            parts.append(aims[one.name].taken(rows))
        return _Aim(
            np.concatenate([part.utterances for part in parts]),
            np.concatenate([part.frames for part in parts]),
            torch.cat([part.targets for part in parts]),
            torch.cat([part.trivial for part in parts]),
        )

    def _add(self, name: str, aim: _Aim, frames: Tensor, output: DistillOutput) -> None:
        """Add loss and statistics of one head; a head without targets takes part."""
        rows = flat_rows(frames, aim.utterances, aim.frames)
        predicted = self.heads[name](rows)
        loss = f"loss_{name}"
        output.losses[loss] = frame_losses(predicted, aim.targets, self.loss).sum()
        by_name = {one.name: one.weight for one in self.options}
        own = by_name[name] if self.combine == "heads" else 1.0
        output.weights[loss] = self.weight * own
        count = len(aim.frames)
        output.frames[loss] = torch.full((), count, device=frames.device)
        with torch.no_grad(), torch.autocast(frames.device.type, enabled=False):
            targets, ours = aim.targets.float(), predicted.detach().float()
            trivial = aim.trivial.float().expand_as(targets)
            constant = frame_losses(trivial, targets, self.loss)
            variances = [
                (values - values.mean(0)).square().sum()
                for values in (ours - targets, targets)
            ]
            cosine = torch.nn.functional.cosine_similarity(ours, targets, dim=-1)
            # NaN without targets: ESPnet's reporter leaves these batches out.
            output.stats[f"loss_trivial_{name}"] = constant.mean()
            output.stats[f"explained_{name}"] = 1 - variances[0] / variances[1]
            output.stats[f"cosine_{name}"] = cosine.mean()


def _places(aim: _Aim) -> np.ndarray:
    """Return one ascending number for each row."""
    return (aim.utterances << 32) + aim.frames


def _absent(one: TeacherOptions) -> UserError | None:
    """Return the error of a teacher that is not on this machine; None if it is.

    A store with the times of the frames replaces the files, if the width is known.
    """
    name, revision = one.conf.get("teacher"), one.conf.get("teacher_revision")
    if name is None or local_folder(str(name), revision) is not None:
        return None
    try:
        _build(one)
    except UserError as error:
        return error
    return None


def _build(
    one: TeacherOptions, stored: bool = True, timed: bool = True
) -> SpeechTeacher:
    """Build a teacher; ``timed``: one that knows the times of its frames."""
    try:
        teacher = build_speech_teacher(one.conf, stored=stored)
        if timed:
            _ = teacher.times
        return teacher
    except UserError as error:
        raise UserError(f"criterion_conf.teachers.{one.name}: {error}") from error
