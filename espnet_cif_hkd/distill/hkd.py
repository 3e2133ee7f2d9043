"""Hierarchical knowledge distillation: a PLM teaches at two levels (spec A 3.4, 3.5).

The acoustic level (ACD) draws each fired vector to its token's PLM vector and away
from those of other tokens; the linguistic level (LRD) regresses the decoder's state
on the same vector.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.distill.criterion import AbsDistillCriterion, DistillOutput
from espnet_cif_hkd.distill.options import (
    ACOUSTIC,
    LINGUISTIC,
    check_options,
    level_options,
)
from espnet_cif_hkd.distill.sharing import gather_over_ranks
from espnet_cif_hkd.io.device import TokenPlaces
from espnet_cif_hkd.losses.contrastive import (
    negatives_per_token,
    token_contrastive_loss,
)
from espnet_cif_hkd.losses.regression import token_regression_loss
from espnet_cif_hkd.teachers.base import TextTeacher
from espnet_cif_hkd.teachers.registry import build_text_teacher

_VALIDATION_SEED = 0


class HKDCriterion(AbsDistillCriterion):
    """Both levels of HKD, each with its own weight.

    Args:
        token_list: of the ASR model.
        embed_size: D, width of the fired vectors.
        state_size: D2, width of the decoder states.
        teacher: The language model: a folder, a hub name, or
            ``pkg://DISTRIBUTION/FOLDER``, a folder inside of an installed pip package.
            Its tokenizer must be a fast one. Required unless both weights are 0.
        teacher_dim: Width C of its vectors, ``hidden_size`` in its config.json.
            Required with ``teacher``.
        teacher_store: Folder of stored vectors, made by ``python3 -m
            espnet_cif_hkd.cli.dump_teacher``, which recipes run before stage 10; then
            training opens no language model.
        acoustic: Options of ACD (:class:`AcousticOptions`); null leaves the level out.
        linguistic: Options of LRD (:class:`LinguisticOptions`); null leaves the level
            out.
        teacher_revision: Commit or tag of a hub name; required for those.
        layer: Whose output teaches: 0 is the embedding, n layer n, -1 the last layer.
        token_type: Of the recogniser's units; null infers it from the token list.
        teacher_dtype: Precision of the teacher's own computation: ``float32`` or
            ``bfloat16``.
        case: How transcripts are shown to the teacher: ``keep`` as they are,
            ``lower``, or ``auto``: lower if no token of the recogniser holds a
            lower-case letter.
        teacher_type: ``plm``, a language model; ``random``, the control: one random
            vector for each token, which needs ``teacher_dim`` only; or the name of a
            registered class of your own.
        teacher_conf: Further options of the teacher's class. Those of ``random`` are
            ``seed`` (1) and ``variance``, the squared length of each vector
            (``teacher_dim``).

    Raises:
        UserError: an option is unknown, missing or out of range.
    """

    def __init__(
        self,
        token_list: Sequence[str],
        embed_size: int,
        state_size: int,
        teacher: str | None = None,
        teacher_dim: int | None = None,
        teacher_store: str | None = None,
        acoustic: Mapping[str, Any] | None = ACOUSTIC,
        linguistic: Mapping[str, Any] | None = LINGUISTIC,
        teacher_revision: str | None = None,
        layer: int = -1,
        token_type: str | None = None,
        teacher_dtype: str = "float32",
        case: str = "auto",
        teacher_type: str = "plm",
        teacher_conf: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.acoustic = level_options("acoustic", acoustic, ACOUSTIC)
        self.linguistic = level_options("linguistic", linguistic, LINGUISTIC)
        check_options(self.acoustic, self.linguistic)
        self.decoder_states = self.linguistic["states"]
        self.acoustic_projection: torch.nn.Linear | None = None
        self.linguistic_projection: torch.nn.Linear | None = None
        self._teacher: TextTeacher | None = None
        self._told_few = False
        if not (self.acoustic["weight"] or self.linguistic["weight"]):
            return
        conf = {
            "teacher": teacher,
            "teacher_dim": teacher_dim,
            "teacher_store": teacher_store,
            "teacher_revision": teacher_revision,
            "layer": layer,
            "teacher_dtype": teacher_dtype,
            "case": case,
            "teacher_type": teacher_type,
            "teacher_conf": teacher_conf,
        }
        self._teacher = build_text_teacher(conf, token_list, token_type)
        dim = self._teacher.payload.width
        if self.acoustic["weight"]:
            self.acoustic_projection = torch.nn.Linear(embed_size, dim)
        if self.linguistic["weight"]:
            self.linguistic_projection = torch.nn.Linear(state_size, dim)

    def forward(
        self,
        embeddings: Tensor,
        states: Tensor,
        lengths: Tensor,
        ys_pad: Tensor,
        ys_pad_lens: Tensor,
    ) -> DistillOutput:
        """See :class:`AbsDistillCriterion`; losses ``loss_acd`` and ``loss_lrd``."""
        output = DistillOutput()
        if self._teacher is None:
            return output
        # The one time that the host waits for the device: sentences are found, spelt
        # or hashed, by their token ids.
        n_batch, width = ys_pad.shape
        host = torch.cat([lengths, ys_pad_lens, ys_pad.flatten()]).tolist()
        ys_lens, ids = host[n_batch : 2 * n_batch], host[2 * n_batch :]
        sequences = [ids[b * width : b * width + n] for b, n in enumerate(ys_lens)]
        sizes = [len(sequence) + 1 for sequence in sequences]
        if host[:n_batch] != sizes:
            raise ValueError(
                f"lengths {host[:n_batch]} must be ys_pad_lens + 1 = {sizes}"
            )
        places = TokenPlaces(sizes, embeddings.device)
        teacher = self._teacher.features(sequences, embeddings.device)
        # Padding is taken out before anything is computed: whatever it holds, even
        # NaN, reaches neither the losses nor the gradients.
        if self.acoustic_projection is not None:
            student = self.acoustic_projection(places.take(embeddings))
            candidates, first = teacher, 0
            # Not in validation: ESPnet plots attention on the first process alone,
            # which would wait for the others for ever.
            if self.training and self.acoustic["share_negatives"]:
                candidates, first = gather_over_ranks(teacher)
            losses, accuracy = token_contrastive_loss(
                student,
                candidates,
                self.acoustic["temperature"],
                self.acoustic["num_negatives"],
                generator=self._generator(student.device),
                first=first,
            )
            output.losses["loss_acd"] = losses.sum()
            output.weights["loss_acd"] = self.acoustic["weight"]
            output.stats["acc_acd"] = accuracy
            output.stats["negatives_acd"] = float(
                self._count_negatives(len(candidates))
            )
        if self.linguistic_projection is not None:
            student = self.linguistic_projection(places.take(states))
            losses = token_regression_loss(
                student, teacher, self.linguistic["reduction"]
            )
            output.losses["loss_lrd"] = losses.sum().float()
            output.weights["loss_lrd"] = self.linguistic["weight"]
        return output

    def _count_negatives(self, n_candidates: int) -> int:
        """How many are drawn for each token; said once if a batch has too few."""
        asked = self.acoustic["num_negatives"]
        count = negatives_per_token(n_candidates, asked)
        if asked is not None and count < asked and not self._told_few:
            self._told_few = True
            logging.warning(
                "a batch of %d tokens has fewer than the %d negatives asked for: %d "
                "are drawn (80 %%); said once, the log's negatives_acd counts",
                n_candidates,
                asked,
                count,
            )
        return count

    def _generator(self, device: torch.device) -> torch.Generator | None:
        """In validation the same draws each time, so that epochs can be compared."""
        if self.training:
            return None
        return torch.Generator(device).manual_seed(_VALIDATION_SEED)
