"""Hierarchical knowledge distillation: a language model teaches at two levels.

The acoustic level (ACD) is a contrastive loss between each fired vector and the
teacher's vector of its token; vectors of other tokens are the negatives. The linguistic
level (LRD) is a regression of the decoder state on the same teacher vector.

Source: Han et al., arXiv 2301.13003.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch

from espnet_cif_hkd.distill.criterion import (
    AbsDistillCriterion,
    CheckContext,
    DistillOutput,
    Sentences,
)
from espnet_cif_hkd.distill.options import (
    ACOUSTIC,
    LEVELS,
    LINGUISTIC,
    levels,
    wanted_taps,
)
from espnet_cif_hkd.distill.sharing import gather_over_ranks
from espnet_cif_hkd.distill.standardize import (
    Standardizer,
    check_standardization,
)
from espnet_cif_hkd.distill.taps import Student, Taps, require_taps
from espnet_cif_hkd.io.device import TokenPlaces
from espnet_cif_hkd.losses.contrastive import (
    negatives_per_token,
    token_contrastive_loss,
)
from espnet_cif_hkd.losses.regression import token_regression_loss
from espnet_cif_hkd.teachers.base import TextTeacher
from espnet_cif_hkd.teachers.registry import build_text_teacher, teacher_choices

_VALIDATION_SEED = 0


class HKDCriterion(AbsDistillCriterion):
    """Both levels of HKD, each with its own weight.

    The losses ``loss_acd`` and ``loss_lrd`` are sums over the target tokens, ``<eos>``
    included. The statistics are ``acc_acd``, the share of fired vectors whose nearest
    teacher vector is their own, and ``negatives_acd``, the number of negatives.

    Args:
        student: The recogniser. ACD needs its fired vectors, LRD its decoder states.
        teacher: The language model: a folder, a hub name, or
            ``pkg://DISTRIBUTION/FOLDER``, a folder in an installed pip package. It
            needs a fast tokenizer. Required unless both weights are 0.
        teacher_dim: C, width of the teacher's vectors: ``hidden_size`` in its
            config.json. Required with ``teacher``.
        teacher_store: Folder of stored vectors; with it the training does not load the
            language model. Recipes fill it before stage 10, as ``python3 -m
            espnet_cif_hkd.cli.dump_teacher`` does.
        acoustic: Options of ACD (:class:`AcousticOptions`); null leaves the level out.
        linguistic: Options of LRD (:class:`LinguisticOptions`); null leaves the level
            out.
        teacher_revision: Commit or tag; required if ``teacher`` is a hub name.
        layer: Layer of the teacher whose output is the target: 0 is the embedding, n is
            layer n, -1 is the last layer.
        token_type: Token type of the recogniser; null infers it from the token list.
        teacher_dtype: Precision of the teacher's computation: ``float32`` or
            ``bfloat16``.
        case: Case of the transcripts that the teacher reads: ``keep``, ``lower``, or
            ``auto``, which is lower if no token of the recogniser has a lower-case
            letter.
        teacher_type: ``plm``: a language model. ``random``: the control, one random
            vector for each token; needs ``teacher_dim`` only. Or the name of your own
            registered class.
        teacher_conf: Other options of the teacher's class. Those of ``random`` are
            ``seed`` (1) and ``variance``, the squared length of each vector
            (``teacher_dim``).
        normalize_teacher: Whether each dimension of the teacher's vectors is shifted to
            mean 0 and scaled to variance 1: the statistics are those of 20,000 vectors
            of ``teacher_store``, or of all vectors of ``random``, and are part of the
            checkpoint. LRD then begins with about ``teacher_dim`` per token.

    Raises:
        UserError: An option is unknown, missing or out of range.
    """

    def __init__(
        self,
        student: Student,
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
        normalize_teacher: bool = False,
    ):
        super().__init__()
        self.acoustic, self.linguistic = levels(acoustic, linguistic)
        self.wants = wanted_taps(self.acoustic, self.linguistic)
        self.acoustic_projection: torch.nn.Linear | None = None
        self.linguistic_projection: torch.nn.Linear | None = None
        self.standardizer: Standardizer | None = None
        self._teacher: TextTeacher | None = None
        self._warned_of_few = False
        if not self.wants:
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
        self._teacher = build_text_teacher(conf, student.token_list, token_type)
        dim = self._teacher.payload.width
        check_standardization(normalize_teacher, self._teacher.has_sample())
        if normalize_teacher:
            self.standardizer = Standardizer(dim)
        if self.acoustic["weight"]:
            size = student.size("fired")
            self.acoustic_projection = torch.nn.Linear(size, dim)
        if self.linguistic["weight"]:
            size = student.size(f"states:{self.linguistic['states']}")
            self.linguistic_projection = torch.nn.Linear(size, dim)

    @classmethod
    def check(cls, conf: Mapping[str, Any], context: CheckContext) -> list[str]:
        """Check the options and everything of the teacher but its weights."""
        from espnet_cif_hkd.distill.check import check_teacher

        super().check(conf, context)
        chosen = [conf.get(n, default) for n, default in LEVELS.items()]
        if context.taps is not None:
            wanted = wanted_taps(*levels(*chosen))
            require_taps("criterion hkd", wanted, context.taps, context.model)
        report = check_teacher(conf, context.token_list, context.token_type)
        if report is not None:
            kind = teacher_choices.get_class(str(conf.get("teacher_type") or "plm"))
            sampled = bool(conf.get("teacher_store")) or kind.has_sample()
            check_standardization(conf.get("normalize_teacher", False), sampled)
        if report is None or context.token_list is None or not report.unknown_tokens:
            return []
        unknown = report.unknown_tokens
        return [
            f"teacher {report.teacher} does not know {len(unknown)} of "
            f"{len(context.token_list)} tokens: {' '.join(unknown[:5])}"
        ]

    @classmethod
    def store(cls, conf: Mapping[str, Any]) -> str | None:
        """``teacher_store``."""
        return conf.get("teacher_store") or None

    @classmethod
    def fill(cls, conf: Mapping[str, Any], folder: str, sentences: Sentences) -> None:
        """Add the vectors of missing sentences to ``folder``."""
        from espnet_cif_hkd.distill.check import fill_teacher_store

        fill_teacher_store(conf, folder, sentences)

    def forward(self, taps: Taps) -> DistillOutput:
        """Return ``loss_acd`` and ``loss_lrd``; see :class:`AbsDistillCriterion`."""
        output = DistillOutput()
        if self._teacher is None:
            return output
        # The host waits for the device only here: the teacher needs the token ids on
        # the host to look sentences up.
        n_batch, width = taps.ys_pad.shape
        host = torch.cat([taps.ys_pad_lens, taps.ys_pad.flatten()]).tolist()
        ys_lens, ids = host[:n_batch], host[n_batch:]
        sequences = [ids[b * width : b * width + n] for b, n in enumerate(ys_lens)]
        device = taps.hs_pad.device
        places = TokenPlaces([len(sequence) + 1 for sequence in sequences], device)
        teacher = self._teacher.features(sequences, device)  # (N, C)
        if self.standardizer is not None:
            teacher = self.standardizer(teacher, self._teacher)
        # Padding is removed before anything is computed, so that no value of it, not
        # even NaN, affects the losses or the gradients.
        if self.acoustic_projection is not None:
            assert taps.fired is not None
            student = self.acoustic_projection(places.take(taps.fired.embeddings))
            candidates, first = teacher, 0
            # Not in validation: there ESPnet plots attention on the first process only,
            # which would wait forever for the others.
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
            states = taps.states[self.linguistic["states"]]
            student = self.linguistic_projection(places.take(states))
            losses = token_regression_loss(
                student, teacher, self.linguistic["reduction"]
            )
            output.losses["loss_lrd"] = losses.sum().float()
            output.weights["loss_lrd"] = self.linguistic["weight"]
        return output

    def _count_negatives(self, n_candidates: int) -> int:
        """Number of negatives of a token; warns once if a batch has too few tokens."""
        asked = self.acoustic["num_negatives"]
        count = negatives_per_token(n_candidates, asked)
        if asked is not None and count < asked and not self._warned_of_few:
            self._warned_of_few = True
            logging.warning(
                "a batch of %d tokens has fewer than the %d negatives asked for: %d "
                "are drawn (80 %%); this is logged once, negatives_acd counts them",
                n_candidates,
                asked,
                count,
            )
        return count

    def _generator(self, device: torch.device) -> torch.Generator | None:
        """Return a fixed generator in validation, so that epochs can be compared."""
        if self.training:
            return None
        return torch.Generator(device).manual_seed(_VALIDATION_SEED)
