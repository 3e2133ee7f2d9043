"""Heads of the criterion ``soft_labels``: from frames of a tap to losses of units.

Shapes and names
----------------
===  =====================================================================
B    utterances
T    frames of the tap, padded
D    width of the tap
V    tokens of the unit
R    units of the batch
N    rows that learn: frames with a unit, or units
===  =====================================================================

Padding of the frames may hold any value, NaN included.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.decoder.firing_options import build_predictor
from espnet_cif_hkd.distill.heard import flat_rows
from espnet_cif_hkd.distill.level_options import HARD, LevelOptions
from espnet_cif_hkd.distill.level_sources import BatchUnits, SoftLabels
from espnet_cif_hkd.distill.schedule import UpdateCount
from espnet_cif_hkd.distill.taps import Taps
from espnet_cif_hkd.encoder.frames import frames_needed
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import TokenPlaces, on_device
from espnet_cif_hkd.losses.ctc_alignment import (
    ctc_alignment,
    middle_frames,
)
from espnet_cif_hkd.losses.soft_labels import (
    log_probabilities,
    soft_cross_entropy,
    soft_label_loss,
)

# The share of utterances that are left out is checked after this number of them, and
# refused this number of standard deviations above its limit: utterances of a batch
# are similar, so the first ones are no fair sample.
_ENOUGH, _DEVIATIONS = 2000, 5.0


@dataclass
class LevelLosses:
    """Losses of a level for one batch.

    Attributes:
        sums: Sums over units or frames by name, float32 scalars.
        counts: Number of units or frames of each sum, an integer or a scalar tensor.
        stats: Other numbers for the log.
        left_out: Whether each utterance is left out.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor | int] = field(default_factory=dict)
    stats: dict[str, Tensor | float] = field(default_factory=dict)
    left_out: list[bool] = field(default_factory=list)

    def add(self, name: str, total: Tensor, count: Tensor | int) -> None:
        """Add a loss."""
        self.sums[name], self.counts[name] = total, count


class LevelHead(torch.nn.Module):
    """A linear output layer on frames of a tap, in training only.

    Args:
        options: Options of the level.
        width: D.
        n_units: V.
    """

    # Why an utterance is left out, for a message.
    reason = ""

    def __init__(self, options: LevelOptions, width: int, n_units: int):
        super().__init__()
        self.options = options
        self.output = torch.nn.Linear(width, n_units)
        hard = options.hard or HARD[options.map][0]
        self.has_hard = hard != "none" and options.soft < 1
        # Utterances of the training; the checkpoint contains both numbers.
        self.seen, self.left_out = UpdateCount(), UpdateCount()

    def count_left_out(self, left_out: Sequence[bool]) -> None:
        """Count utterances of a training that are left out; check their share once.

        That is in the beginning of a training, also if it was resumed since, so that no
        finished work is lost.

        Args:
            left_out: One value for each utterance of a batch.

        Raises:
            UserError: Their share is above ``max_missing``, and not by chance.
        """
        if self.seen.updates >= _ENOUGH:
            return
        self.seen.updates += len(left_out)
        self.left_out.updates += sum(left_out)
        seen, limit = self.seen.updates, self.options.max_missing / 100
        margin = _DEVIATIONS * (seen * limit * (1 - limit)) ** 0.5
        if seen >= _ENOUGH and self.left_out.updates > seen * limit + margin:
            raise UserError(
                f"{self.left_out.updates} of the first {seen} utterances {self.reason},"
                f" more than max_missing {100 * limit:g} %"
            )

    @abstractmethod
    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        n_frames: list[int],
        units: BatchUnits,
        labels: SoftLabels | None,
    ) -> LevelLosses:
        """Return the losses ``soft``, ``hard`` and others.

        Args:
            frames: (B, T, D), any floating dtype.
            lengths: Valid frames, (B,) int64.
            n_frames: The same on the host.
            units: Units of the batch.
            labels: Soft labels of the R units; None with ``soft: 0``.
        """

    def _rows(
        self,
        vectors: Tensor,
        targets: Tensor,
        labels: SoftLabels | None,
        found: LevelLosses,
    ) -> None:
        """Add the losses of N rows, (N, D): hard targets (N,), labels (N, K)."""
        logits = self.output(vectors)
        logp = log_probabilities(logits)
        count = len(targets)
        if labels is not None:
            soft = self._soft(logits, logp, labels.ids, labels.probabilities)
            found.add("soft", soft.sum(), count)
        if self.has_hard:
            hard = -logp.gather(1, targets[:, None])
            found.add("hard", hard.sum(), count)
        # NaN without rows: ESPnet's reporter leaves these batches out.
        correct = logits.detach().argmax(-1) == targets
        found.stats["acc"] = correct.float().mean()

    def _soft(
        self, logits: Tensor, logp: Tensor, ids: Tensor, probabilities: Tensor
    ) -> Tensor:
        """Return the soft loss of each row, (…), from logits (…, V)."""
        options = self.options
        if options.student_temperature == 1:
            return soft_cross_entropy(logp, ids, probabilities)
        return soft_label_loss(
            logits,
            ids,
            probabilities,
            options.student_temperature,
            options.square_temperature,
        )


class AlignedHead(LevelHead):
    """``map: alignment``: each frame learns the unit whose span has its centre.

    Args:
        times: Times of the frames.
    """

    reason = "have no alignment: run python3 -m espnet_cif_hkd.cli.align_units again"

    def __init__(
        self, options: LevelOptions, width: int, n_units: int, times: FrameTimes
    ):
        super().__init__(options, width, n_units)
        self._times = times

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        n_frames: list[int],
        units: BatchUnits,
        labels: SoftLabels | None,
    ) -> LevelLosses:
        """See :class:`LevelHead`; sums over frames with a unit."""
        from espnet_cif_hkd.teachers.lm.spans import units_of_frames

        assert units.spans is not None
        found = LevelLosses(left_out=units.left_out)
        utterances, numbers, places = [], [], []
        first = 0
        for b, (spans, size) in enumerate(zip(units.spans, n_frames, strict=True)):
            indices = units_of_frames(torch.from_numpy(spans), self._times, size)
            chosen = np.flatnonzero(indices.numpy() >= 0)
            utterances.append(np.full(len(chosen), b, dtype=np.int64))
            numbers.append(chosen)
            places.append(first + indices.numpy()[chosen])
            first += len(spans)
        at, rows = np.concatenate(utterances), np.concatenate(places)
        vectors = flat_rows(frames, at, np.concatenate(numbers))
        device = frames.device
        targets = on_device(units.flat()[rows], device)
        if labels is not None:
            labels = labels.take(on_device(rows, device))
        self._rows(vectors, targets, labels, found)
        found.stats["coverage"] = len(rows) / max(1, sum(n_frames))
        return found


class CTCHead(LevelHead):
    """``map: ctc``: the head is trained by CTC, and its alignment places soft labels.

    The alignment is that of the current parameters. Frames of blanks learn no soft
    label.
    """

    reason = (
        "have fewer frames than CTC needs for their units: use a coarser unit, map: "
        "cif, or a tap with more frames"
    )

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        n_frames: list[int],
        units: BatchUnits,
        labels: SoftLabels | None,
    ) -> LevelLosses:
        """See :class:`LevelHead`.

        ``hard`` is a sum over utterances, counted by their units; ``soft`` a sum over
        frames with a unit.
        """
        found = LevelLosses()
        device, sizes = frames.device, units.sizes
        found.left_out = [
            frames_needed(ids) > size
            for ids, size in zip(units.sequences, n_frames, strict=True)
        ]
        logits = self.output(_without_padding(frames, lengths))
        logp = log_probabilities(logits)  # (B, T, V)
        targets = np.zeros((len(sizes), max(1, *sizes)), dtype=np.int64)
        for row, ids in zip(targets, units.sequences, strict=True):
            row[: len(ids)] = ids
        ys_pad = on_device(targets, device)
        # Utterances with too few frames have an infinite loss.
        hard = torch.nn.functional.ctc_loss(
            logp.transpose(0, 1),
            ys_pad,
            torch.tensor(n_frames),
            torch.tensor(sizes),
            reduction="none",
            zero_infinity=True,
        )
        kept = [
            size for size, out in zip(sizes, found.left_out, strict=True) if not out
        ]
        found.add("hard", hard.sum(), sum(kept))
        if labels is None:
            return found
        ys_lens = on_device(np.array(sizes, dtype=np.int64), device)
        at = ctc_alignment(logp.detach(), lengths, ys_pad, ys_lens)  # (B, T)
        if self.options.position == "middle":
            at = middle_frames(at)
        rows = (on_device(units.first(), device)[:, None] + at).clamp(min=0)
        chosen = labels.take(rows.clamp(max=len(labels.ids) - 1))
        soft = self._soft(logits, logp, chosen.ids, chosen.probabilities)
        found.add("soft", soft.masked_fill(at < 0, 0.0).sum(), (at >= 0).sum())
        found.stats["coverage"] = (at >= 0).sum() / max(1, sum(n_frames))
        return found


class CIFHead(LevelHead):
    """``map: cif``: integrate-and-fire of this level fires one vector for each unit.

    It needs no alignment. The quantity loss trains the sum of alpha, as in ``model:
    cif``.
    """

    def __init__(self, options: LevelOptions, width: int, n_units: int):
        super().__init__(options, width, n_units)
        self.predictor = build_predictor(
            width, options.predictor_conf, "predictor_conf"
        )

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        n_frames: list[int],
        units: BatchUnits,
        labels: SoftLabels | None,
    ) -> LevelLosses:
        """See :class:`LevelHead`; sums over units, also the loss ``quantity``."""
        found = LevelLosses()
        device, sizes = frames.device, units.sizes
        targets = on_device(np.array(sizes, dtype=np.int64), device)
        frames = _without_padding(frames, lengths)
        alpha = self.predictor(frames, lengths)
        fired = integrate_and_fire(
            frames, alpha, lengths, targets, max_target_length=max(0, *sizes)
        )
        vectors = TokenPlaces(sizes, device).take(fired.embeddings)  # (R, D)
        if labels is not None:
            labels = labels.take(slice(len(vectors)))
        self._rows(vectors, on_device(units.flat(), device), labels, found)
        distance = (fired.quantity - targets).abs().sum().float()
        found.add("quantity", distance, sum(sizes))
        return found


def _without_padding(frames: Tensor, lengths: Tensor) -> Tensor:
    """Return frames (B, T, D) with zeros in the padding."""
    return frames.masked_fill(~Taps.valid(lengths, frames)[..., None], 0.0)


def build_head(
    options: LevelOptions, width: int, n_units: int, times: FrameTimes | None
) -> LevelHead:
    """Build the head of a level.

    Args:
        options: Options of the level.
        width: Width of the tap.
        n_units: Tokens of the unit.
        times: Times of the frames of the tap; None if they are unknown.

    Raises:
        UserError: ``map: alignment`` and the times are unknown, or an option is wrong.
    """
    heads: dict[str, Any] = {"ctc": CTCHead, "cif": CIFHead}
    if options.map != "alignment":
        built: LevelHead = heads[options.map](options, width, n_units)
        return built
    if times is None:
        raise UserError(
            f"tap {options.tap}: the times of its frames are unknown for this frontend "
            "and encoder, so map: alignment cannot be used; use map: cif or ctc, or "
            "'frontend: default' and an encoder with a convolutional input layer"
        )
    return AlignedHead(options, width, n_units, times)
