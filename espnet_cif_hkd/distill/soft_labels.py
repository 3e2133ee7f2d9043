"""Soft labels of language models, on auxiliary heads or on the recogniser's output.

Source: after the abstract of arXiv 2110.10429 (Lee and Chang): auxiliary output layers
learn the probabilities of language models with different units. Architecture, weights
and temperatures are ours, and so is ``map: cif``.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.distill.criterion import (
    AbsDistillCriterion,
    CheckContext,
    DistillOutput,
    Sentences,
)
from espnet_cif_hkd.distill.frame_options import adds_silence, refuse_time_warp
from espnet_cif_hkd.distill.level_check import check_depth, check_sources
from espnet_cif_hkd.distill.level_heads import LevelHead, build_head
from espnet_cif_hkd.distill.level_options import Level, level_options
from espnet_cif_hkd.distill.level_sources import LevelSource, SoftLabels, naming
from espnet_cif_hkd.distill.taps import Student, Taps, layers_of, require_taps
from espnet_cif_hkd.distill.transducer_teacher import rows_of
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import TokenPlaces, on_device
from espnet_cif_hkd.losses.rnnt_path import best_path
from espnet_cif_hkd.losses.soft_labels import (
    interpolation_term,
    log_probabilities,
    soft_cross_entropy,
    soft_label_loss,
)
from espnet_cif_hkd.teachers.base import Tokens
from espnet_cif_hkd.teachers.store.header import HEADER


class SoftLabelsCriterion(AbsDistillCriterion):
    """Any number of levels, each with its unit, its language model and its head.

    The losses of a level NAME in the log: ``loss_NAME_soft`` and ``loss_NAME_hard`` are
    means over the frames (``map: alignment``, soft labels of ``map: ctc``) or units
    that learn, ``loss_NAME_quantity`` is a mean over units. ``loss_NAME`` of ``tap:
    logits`` is what the interpolation adds to the token loss, before its weight.
    Statistics: ``acc_NAME``, the share of rows whose most probable unit is the hard
    label; ``coverage_NAME``, the share of frames that learn a unit; ``left_out_NAME``,
    the share of utterances without an alignment, or with too few frames for CTC;
    ``soft_NAME``, the cross-entropy of the recogniser's output against its soft labels.
    For ``model: transducer``, ``loss_NAME`` is this cross-entropy.

    Args:
        student: The recogniser.
        levels: The levels by a name of your choice (:class:`LevelOptions`).
        token_type: Token type of the recogniser; null infers it from the token list.

    Raises:
        UserError: An option is unknown, missing or out of range, or the recogniser
            lacks a tap.
    """

    def __init__(
        self,
        student: Student,
        levels: Mapping[str, Any],
        token_type: str | None = None,
    ):
        super().__init__()
        self.levels = [one for one in level_options(levels) if one.is_used]
        _require(self.levels, student.sizes, student.model, student.label)
        self._sources: dict[str, LevelSource] = {}
        self._token_loss = student.token_loss
        self._on_path = student.model == "transducer"
        self._frame_taps = sorted(
            {one.options.tap for one in self.levels if not one.is_output}
        )
        self.wants = frozenset(one.options.tap for one in self.levels)
        if self._on_path and "logits" in self.wants:
            self.wants |= {"hs_pad", "joint", "states:output"}
        self.heads = torch.nn.ModuleDict()
        for level in self.levels:
            source = LevelSource(level, student.token_list, token_type)
            self._sources[level.name] = source
            if level.is_output and not (student.token_loss or self._on_path):
                raise UserError(
                    f"{level.place}: model: {student.model} does not say how its loss "
                    "contains that of the logits; use levels on encoder layers"
                )
            if level.options.map == "alignment" and not level.is_output:
                refuse_time_warp(student.time_warp)
            # Decoding needs no head: a training refuses the first batch.
            if level.is_output or source.absent is not None:
                continue
            tap = level.options.tap
            try:
                self.heads[level.name] = build_head(
                    level.options,
                    student.size(tap),
                    len(source.tokens),
                    student.timing.get(tap),
                )
            except UserError as error:
                raise UserError(f"{level.place}: {error}") from error

    @classmethod
    def check(cls, conf: Mapping[str, Any], context: CheckContext) -> list[str]:
        """Check the options, the units and the language models."""
        super().check(conf, context)
        levels = [one for one in level_options(conf.get("levels")) if one.is_used]
        label = "criterion soft_labels"
        if context.taps is not None:
            _require(levels, context.taps, context.model, label)
        check_depth(levels, context.training)
        if context.token_list is None:
            return []
        remarks = []
        for level in levels:
            source = LevelSource(level, context.token_list, conf.get("token_type"))
            source.open()
            kind = level.unit.get("unit", "token")
            remarks.append(f"level {level.name}: {len(source.tokens)} tokens of {kind}")
            if level.is_soft:
                teacher = source.teacher()
                with naming(level):
                    teacher.check()
                    if not level.store:
                        teacher.open()
        return remarks

    @classmethod
    def check_training(
        cls, conf: Mapping[str, Any], training: Mapping[str, Any]
    ) -> None:
        """Check that stores and alignments are there, and cover the training data."""
        levels = [one for one in level_options(conf.get("levels")) if one.is_used]
        check_depth(levels, training)
        aligned = [one for one in levels if one.options.map == "alignment"]
        warp = (training.get("specaug_conf") or {}).get("apply_time_warp", True)
        if aligned:
            refuse_time_warp(bool(training.get("specaug")) and bool(warp))
            if adds_silence(training):
                raise UserError(
                    f"{aligned[0].place}: map: alignment does not fit preprocessor: "
                    "silence, which moves the frames away from the times of the "
                    "alignment: remove one of the two"
                )
        check_sources(levels, training, conf.get("token_type"))

    @classmethod
    def stores(cls, conf: Mapping[str, Any]) -> list[str]:
        """``label_store`` of each level, each once."""
        levels = level_options(conf.get("levels"))
        folders = [one.store for one in levels if one.is_soft and one.store]
        return list(dict.fromkeys(folders))

    @classmethod
    def stale_stores(
        cls, conf: Mapping[str, Any], token_list: Sequence[str]
    ) -> list[str]:
        """See :class:`AbsDistillCriterion`; stores of other language models."""
        from espnet_cif_hkd.teachers.lm.stored import StoredLM

        levels = [one for one in level_options(conf.get("levels")) if one.is_used]
        stale: dict[str, None] = {}
        for level in levels:
            if not (level.is_soft and level.store):
                continue
            source = LevelSource(level, token_list, conf.get("token_type"))
            if source.absent is None and (Path(level.store) / HEADER).is_file():
                teacher = source.teacher()
                if isinstance(teacher, StoredLM) and teacher.is_stale():
                    stale[level.store] = None
        return list(stale)

    @classmethod
    def fill(cls, conf: Mapping[str, Any], folder: str, sentences: Sentences) -> None:
        """Add the labels of missing sequences to ``folder``.

        Raises:
            UserError: No level has this store, or the language model does not fit.
        """
        levels = [one for one in level_options(conf.get("levels")) if one.is_soft]
        chosen = [one for one in levels if one.store == folder]
        chosen = chosen or (levels if len(levels) == 1 else [])
        if not chosen:
            raise UserError(f"criterion_conf.levels: no level has label_store {folder}")
        sources = [
            LevelSource(one, sentences.token_list, conf.get("token_type"))
            for one in chosen
        ]

        def sequences() -> Iterator[Sequence[int]]:
            for source in sources:
                yield from source.sequences(sentences.sequences)

        def units_of(text: str) -> Iterator[Sequence[int]]:
            for name, ids in sentences.texts[text]():
                for source in sources:
                    yield from source.units([ids], [name]).sequences

        from espnet_cif_hkd.teachers.lm.dump import fill_labels

        with naming(chosen[0]):
            fill_labels(
                chosen[0].lm,
                sources[0].tokens,
                sequences,
                folder,
                sentences.device,
                sentences.shard_bytes,
                texts={text: partial(units_of, text) for text in sentences.texts},
            )

    def forward(self, taps: Taps) -> DistillOutput:
        """Return the losses of all levels; see :class:`AbsDistillCriterion`.

        Raises:
            UserError: A file is not on this machine, a store lacks a sequence, or too
                many utterances are left out.
        """
        output = DistillOutput()
        if not self.levels:
            return output
        for source in self._sources.values():
            if source.absent is not None:
                raise source.absent
        texts, n_frames = self._on_host(taps)
        device = taps.hs_pad.device
        for level in self.levels:
            source = self._sources[level.name]
            units = source.units(texts, taps.utt_ids)
            labels = source.labels(units, device) if level.is_soft else None
            if level.is_output:
                assert labels is not None
                labels = labels.take(slice(sum(units.sizes)))
                if self._on_path:
                    self._teach_path(level, taps, units.first(), labels, output)
                else:
                    self._interpolate(level, taps, texts, labels, output)
                continue
            head = self.heads[level.name]
            assert isinstance(head, LevelHead)
            tap = level.options.tap
            frames, lengths = _frames(taps, tap)
            found = head(frames, lengths, n_frames[tap], units, labels)
            options, name = level.options, level.name
            shares = {
                "soft": options.soft,
                "hard": 1 - options.soft,
                "quantity": options.quantity_weight,
            }
            for kind, total in found.sums.items():
                loss = f"loss_{name}_{kind}"
                output.losses[loss] = total
                output.weights[loss] = options.weight * shares[kind]
                count = found.counts[kind]
                if isinstance(count, int):  # no copy to the device
                    count = torch.full((), count, device=device)
                output.frames[loss] = count
            for kind, value in found.stats.items():
                output.stats[f"{kind}_{name}"] = value
            if found.left_out:
                share = sum(found.left_out) / len(found.left_out)
                output.stats[f"left_out_{name}"] = share
                if self.training:
                    with naming(level):
                        head.count_left_out(found.left_out)
        return output

    def _interpolate(
        self,
        level: Level,
        taps: Taps,
        texts: Sequence[Tokens],
        labels: SoftLabels,
        output: DistillOutput,
    ) -> None:
        """Add the difference of soft and hard loss of all tokens but ``<eos>``.

        The model has its hard loss already. With weight c of the difference the sum is
        (1 - c) hard + c soft, for every schedule of c, and no model needs to know. A
        token without hard loss has no difference: alone, minus the hard loss has no
        lower bound.
        """
        assert taps.logits is not None and self._token_loss is not None
        places = TokenPlaces([len(text) for text in texts], taps.logits.device)
        logits = places.take(taps.logits)  # (N, V)
        targets = places.take(taps.ys_pad)
        name, smoothing = f"loss_{level.name}", self._token_loss.smoothing
        ids, given = labels.ids, labels.probabilities
        term = interpolation_term(logits, targets, ids, given, smoothing)
        scored = torch.ones_like(targets, dtype=torch.bool)
        if taps.scored is not None:
            scored = places.take(taps.scored)
        output.losses[name] = term.masked_fill(~scored, 0.0).sum()
        share = float(level.options.interpolation or 0)
        output.weights[name] = share * self._token_loss.weight
        with torch.no_grad():
            logp = log_probabilities(logits)
            soft = soft_cross_entropy(logp, ids, given).masked_fill(~scored, 0.0)
            # NaN without tokens: ESPnet's reporter leaves these batches out.
            output.stats[f"soft_{level.name}"] = soft.sum() / scored.sum()

    def _teach_path(
        self,
        level: Level,
        taps: Taps,
        first: np.ndarray,
        labels: SoftLabels,
        output: DistillOutput,
    ) -> None:
        """Add the soft loss where the best path of a transducer emits the tokens.

        The loss of a transducer has no single place of a token, so nothing is
        subtracted from it. The soft loss compares the probabilities of tokens, without
        the blank. The logits of the nodes are computed again: a gradient through those
        of the complete lattice would have the size of the lattice.
        """
        assert taps.logits is not None and taps.joint is not None
        path = best_path(
            taps.logits.detach(), taps.ys_pad, taps.hlens, taps.ys_pad_lens
        )
        # One node for each token, in the order of the rows of the labels.
        utterances, nodes = (path.emits & path.valid).nonzero(as_tuple=True)
        frames, tokens = path.frames[utterances, nodes], path.tokens[utterances, nodes]
        logits = taps.joint(  # (N, V)
            rows_of(taps.hs_pad, utterances, frames),
            rows_of(taps.states["output"], utterances, tokens),
        )
        logits = torch.cat(
            [torch.full_like(logits[:, :1], -torch.inf), logits[:, 1:]], dim=1
        )
        chosen = labels.take(on_device(first, logits.device)[utterances] + tokens)
        soft = soft_label_loss(logits, chosen.ids, chosen.probabilities)
        name = f"loss_{level.name}"
        output.losses[name] = soft.sum()
        output.weights[name] = float(level.options.interpolation or 0)
        output.stats[f"soft_{level.name}"] = soft.detach().mean()

    def _on_host(self, taps: Taps) -> tuple[list[Tokens], dict[str, list[int]]]:
        """Return the texts and the frames of each tap; the host waits only here."""
        lengths = [_frames(taps, tap)[1] for tap in self._frame_taps]
        n_batch, width = taps.ys_pad.shape
        parts = [taps.ys_pad_lens, *lengths, taps.ys_pad.flatten()]
        host = torch.cat([part.long() for part in parts]).tolist()
        counts = [host[n * n_batch : (n + 1) * n_batch] for n in range(len(parts) - 1)]
        ids = host[len(counts) * n_batch :]
        texts: list[Tokens] = [
            ids[b * width : b * width + n] for b, n in enumerate(counts[0])
        ]
        return texts, dict(zip(self._frame_taps, counts[1:], strict=True))


def _frames(taps: Taps, tap: str) -> tuple[Tensor, Tensor]:
    """Return the frames of a tap and their numbers."""
    if tap == "hs_pad":
        return taps.hs_pad, taps.hlens
    (layer,) = layers_of([tap])
    return taps.layers[layer], taps.layer_lens[layer]


def _require(levels: Sequence[Level], offered: Any, model: str, label: str) -> None:
    """Refuse levels on taps that the model lacks.

    Raises:
        UserError: The message names the level.
    """
    for level in levels:
        require_taps(
            f"{label}: level {level.name}", [level.options.tap], offered, model
        )
