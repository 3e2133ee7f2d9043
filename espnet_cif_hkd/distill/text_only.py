"""Sentences without speech for the CIF decoder: fired vectors are made up.

CIF has one vector for each token, so a text needs no length model to enter the decoder.
A linear map learns, from the transcripts of the batch, which vector a token fires. The
vectors of other sentences come from this map, are partly masked, and get noise.

An exploration; the method is ours.

Shapes
------
===  ====================================================================
R    target tokens of the batch with ``<eos>``, without padding
K    tokens of the drawn sentences with ``<eos>``, without padding
N    drawn sentences
L    tokens of the longest of them, with ``<eos>``
C    width of an embedding, or of a teacher's vector
D    size of a fired vector
===  ====================================================================
"""

import dataclasses
import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
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
from espnet_cif_hkd.distill.schedule import UpdateCount
from espnet_cif_hkd.distill.taps import Student, Taps, TextDecoder
from espnet_cif_hkd.distill.unpaired_text import UnpairedText, read_unpaired_text
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import TokenPlaces, on_device
from espnet_cif_hkd.losses.token import score_tokens
from espnet_cif_hkd.teachers.base import TextTeacher
from espnet_cif_hkd.teachers.registry import build_text_teacher

SOURCES = ("embedding", "teacher")
_IGNORED = -1
# Options by name: the smallest value, and the largest.
_NUMBERS = {"mask": (0.0, 1.0), "noise": (0.0, 100.0)}
_COUNTS = {"batch_size": 1, "max_length": 1, "start": 0, "seed": 0}


class TextOnlyCriterion(AbsDistillCriterion):
    """Train the decoder of ``decoder: cif`` on sentences without speech, too.

    ``loss_map`` is the mean squared error of the map per target token of the batch, a
    mean over the dimensions; it trains the map alone. ``loss_text`` is the
    cross-entropy of the decoder, with the label smoothing of the model, per token of
    the drawn sentences; it trains the decoder alone. Validation computes ``loss_map``
    only. Statistics: ``explained``, the share of the variance of the fired vectors that
    the map explains; ``acc_text`` and ``nll_text``, accuracy and negative
    log-likelihood of the tokens of the drawn sentences.

    The drawn sentences depend on ``seed``, the number of batches so far and the
    process. Each process draws its own. The checkpoint contains the number of batches.

    Args:
        student: The recogniser.
        text: Kaldi text file: in each line a name, then the words, written as in the
            transcripts. Empty sentences, those above ``max_length`` and those with
            unknown tokens are left out and counted.
        source: Input of the map. ``embedding``: the decoder's embedding of the token,
            which ``loss_map`` does not change. ``teacher``: the language model's vector
            of the token.
        mask: Share of the tokens whose vector is replaced by the mean of the fired
            vectors of the batch, 0 to 1; 1: the text trains the decoder as a language
            model.
        noise: Standard deviation of the noise on all vectors, in standard deviations of
            the fired vectors of the batch in the same dimension.
        weight: Weight of ``loss_text``.
        batch_size: Number of sentences for each batch of speech, in each process.
        max_length: Largest number of tokens of a sentence.
        start: Number of batches before the text takes part. Unlike the ``start`` of
            other criteria it is not counted in updates, and the map learns from the
            first batch.
        seed: Determines the sentences, the masks and the noise.
        token_type: Token type of the recogniser: ``char``, ``bpe`` or ``word``; null
            infers it from the token list.
        bpemodel: Sentencepiece model of the recogniser, for ``bpe``.
        teacher: For ``source: teacher``: the language model, as in ``hkd``.
        teacher_dim: Width of its vectors.
        teacher_store: Folder of stored vectors. Recipes fill it before stage 10, with
            the vectors of the text, too. ``hkd`` with the same teacher may share it.
        teacher_revision: Commit or tag of a teacher from a hub.
        layer: Layer of the teacher, as in ``hkd``.
        case: Case of the text that the teacher reads, as in ``hkd``.

    Raises:
        UserError: An option is unknown, missing or out of range.
    """

    wants = frozenset({"decoder", "fired"})

    def __init__(
        self,
        student: Student,
        text: str,
        source: str = "embedding",
        mask: float = 0.3,
        noise: float = 0.5,
        weight: float = 0.5,
        batch_size: int = 16,
        max_length: int = 200,
        start: int = 0,
        seed: int = 1,
        token_type: str | None = None,
        bpemodel: str | None = None,
        teacher: str | None = None,
        teacher_dim: int | None = None,
        teacher_store: str | None = None,
        teacher_revision: str | None = None,
        layer: int = -1,
        case: str = "auto",
    ):
        super().__init__()
        given = {
            "text": text,
            "source": source,
            "mask": mask,
            "noise": noise,
            "weight": weight,
            "batch_size": batch_size,
            "max_length": max_length,
            "start": start,
            "seed": seed,
            "token_type": token_type,
            "bpemodel": bpemodel,
            "teacher": teacher,
            "teacher_dim": teacher_dim,
            "teacher_store": teacher_store,
            "teacher_revision": teacher_revision,
            "layer": layer,
            "case": case,
        }
        _check(given, {})
        self._conf, self._tokens = given, student.token_list
        self.mask, self.noise, self.weight = float(mask), float(noise), float(weight)
        self.batch_size, self.start, self.seed = batch_size, start, seed
        self.smoothing = student.token_loss.smoothing if student.token_loss else 0.0
        self._teacher: TextTeacher | None = None
        size = width = student.size("fired")
        if source == "teacher":
            self._teacher = build_text_teacher(given, student.token_list, token_type)
            width = self._teacher.payload.width
        self.map = torch.nn.Linear(width, size)
        # The number of batches, which the checkpoint contains.
        self.batches = UpdateCount()

    @classmethod
    def check(cls, conf: Mapping[str, Any], context: CheckContext) -> list[str]:
        """Check the options, the decoder, the teacher and the text."""
        super().check(conf, context)
        _check(conf, context.training)
        if conf.get("source") == "teacher":
            from espnet_cif_hkd.teachers.check import check_text_teacher

            check_text_teacher(conf, context.token_list, context.token_type)
        if context.token_list is None:
            return []
        return [f"text without speech: {_read(conf, context.token_list).describe()}"]

    @classmethod
    def check_training(
        cls, conf: Mapping[str, Any], training: Mapping[str, Any]
    ) -> None:
        """Check the options, the decoder and that the text is there."""
        _check(conf, training)
        if not Path(str(conf["text"])).is_file():
            raise UserError(
                f"criterion_conf.text {conf['text']}: this file does not exist"
            )

    @classmethod
    def stores(cls, conf: Mapping[str, Any]) -> list[str]:
        """``teacher_store`` of ``source: teacher``."""
        folder = conf.get("teacher_store")
        return [str(folder)] if folder and conf.get("source") == "teacher" else []

    @classmethod
    def fill(cls, conf: Mapping[str, Any], folder: str, sentences: Sentences) -> None:
        """Add the vectors of the transcripts and of the text to ``folder``."""
        from espnet_cif_hkd.distill.check import add_vectors

        text = _read(conf, sentences.token_list)

        def sequences() -> Iterable[Sequence[int]]:
            return itertools.chain(sentences.sequences(), text.sequences())

        more = dataclasses.replace(sentences, sequences=sequences)
        add_vectors({**conf, "teacher_store": folder}, folder, more)

    @cached_property
    def text(self) -> UnpairedText:
        """The sentences; only a training reads the file.

        Raises:
            UserError: The file is missing or wrong.
        """
        text = _read(self._conf, self._tokens)
        logging.info("%s: %s", self._conf["text"], text.describe())
        return text

    def forward(self, taps: Taps) -> DistillOutput:
        """Return both losses; see :class:`AbsDistillCriterion`."""
        assert taps.fired is not None and taps.decoder is not None
        if self.common.max_share is not None:
            raise UserError(
                "criterion_conf.max_share: no gradient of text_only passes a tap, so "
                "there is nothing to bound; remove it, and use weight"
            )
        # The host waits for the device only here.
        n_batch, width = taps.ys_pad.shape
        host = torch.cat([taps.ys_pad_lens, taps.ys_pad.flatten()]).tolist()
        sizes, ids = host[:n_batch], host[n_batch:]
        heard = [ids[b * width : b * width + n] for b, n in enumerate(sizes)]
        places = TokenPlaces([n + 1 for n in sizes], taps.hs_pad.device)
        fired = places.take(taps.fired.embeddings.detach())  # (R, D)
        fired = fired.to(self.map.weight.dtype)
        mean = fired.mean(0)
        variance = (fired - mean).square().mean(0)  # (D,)
        with torch.autocast(fired.device.type, enabled=False):
            missed = (self._vectors(heard, taps.decoder) - fired).square()
        output = DistillOutput(
            losses={"loss_map": missed.mean(1).sum()}, weights={"loss_map": 1.0}
        )
        with torch.no_grad():
            unexplained = missed.mean(0).sum() / variance.sum().clamp(min=1e-12)
            output.stats["explained"] = 1 - unexplained
        if self.training:
            step = self.batches.updates - self.start
            self.batches.updates += 1
            if step >= 0:
                self._read_text(step, mean, variance.sqrt(), taps.decoder, output)
        return output

    def _vectors(self, sentences: Sequence[list[int]], decoder: TextDecoder) -> Tensor:
        """Return the map's vectors of all tokens with ``<eos>``, (K, D)."""
        device = self.map.weight.device
        if self._teacher is not None:
            given = self._teacher.features(sentences, device)  # (K, C)
        else:
            flat = [token for ids in sentences for token in (*ids, decoder.eos)]
            given = decoder.embedding[on_device(np.array(flat), device)]
        given = given.to(self.map.weight.dtype)
        # Teachers and embeddings have other scales, which change in a training.
        normed = torch.nn.functional.layer_norm(given, given.shape[1:])
        return self.map(normed)  # type: ignore[no-any-return]

    def _read_text(
        self,
        step: int,
        mean: Tensor,
        deviation: Tensor,
        decoder: TextDecoder,
        output: DistillOutput,
    ) -> None:
        """Add the loss of the sentences of a step."""
        rank, n_ranks = _rank()
        place = step * n_ranks + rank
        sentences = self.text.draw(place * self.batch_size, self.batch_size, self.seed)
        device = self.map.weight.device
        generator = torch.Generator(device).manual_seed(_seed(self.seed, place))
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            vectors = self._vectors(sentences, decoder)  # (K, D)
            drawn = torch.rand(len(vectors), 1, generator=generator, device=device)
            vectors = torch.where(drawn < self.mask, mean, vectors)
            noise = torch.randn(
                *vectors.shape, generator=generator, device=device, dtype=mean.dtype
            )
            vectors = vectors + self.noise * deviation * noise
        tokens, targets, rows = (
            on_device(one, device)
            for one in _padded(sentences, decoder.sos, decoder.eos)
        )
        logits, _ = decoder.decode(vectors[rows], tokens)  # (N, L, V)
        scores = score_tokens(logits, targets, _IGNORED, self.smoothing)
        output.losses["loss_text"] = scores.loss
        output.weights["loss_text"] = self.weight
        output.frames["loss_text"] = torch.full((), len(vectors), device=device)
        output.stats["acc_text"] = scores.n_correct / len(vectors)
        output.stats["nll_text"] = scores.nll / len(vectors)


def _padded(
    sentences: Sequence[list[int]], sos: int, eos: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return inputs, targets, and the row of each token among all; (N, L) int64.

    Attention is causal and padding follows the tokens, so padding may be any row.
    """
    width = max(map(len, sentences)) + 1
    tokens = np.full((len(sentences), width), eos)
    targets, rows = np.full_like(tokens, _IGNORED), np.zeros_like(tokens)
    first = 0
    for n, ids in enumerate(sentences):
        size = len(ids) + 1
        tokens[n, :size] = [sos, *ids]
        targets[n, :size] = [*ids, eos]
        rows[n, :size] = np.arange(first, first + size)
        first += size
    return tokens, targets, rows


def _seed(seed: int, place: int) -> int:
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0])


def _rank() -> tuple[int, int]:
    """Return the number of this process, and of all processes."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def _read(conf: Mapping[str, Any], token_list: Sequence[str]) -> UnpairedText:
    return read_unpaired_text(
        str(conf["text"]),
        token_list,
        conf.get("token_type"),
        conf.get("bpemodel"),
        conf.get("max_length", 200),
    )


def _check(conf: Mapping[str, Any], training: Mapping[str, Any]) -> None:
    """Check the values of options, and the decoder; missing ones have their default.

    Raises:
        UserError: A value is of the wrong type or out of range, or the decoder is one
            without a text.
    """
    decoder = training.get("decoder") or "cif"
    if decoder != "cif":
        raise UserError(
            f"criterion_conf: text_only needs 'decoder: cif'; 'decoder: {decoder}' "
            "does not read fired vectors and earlier tokens"
        )
    if not isinstance(conf.get("text"), str) or not conf["text"].strip():
        raise UserError(
            f"criterion_conf.text is {conf.get('text')!r}; name a Kaldi text file"
        )
    source = conf.get("source", SOURCES[0])
    if source not in SOURCES:
        raise UserError(
            f"criterion_conf.source is {source!r}; use one of {', '.join(SOURCES)}"
        )
    for name, (least, most) in _NUMBERS.items():
        value = conf.get(name, least)
        if type(value) not in (int, float) or not least <= value <= most:
            raise UserError(
                f"criterion_conf.{name} is {value!r}; give a number from {least:g} to "
                f"{most:g}"
            )
    weight = conf.get("weight", 1)
    if type(weight) not in (int, float) or not 0 < weight < float("inf"):
        raise UserError(f"criterion_conf.weight is {weight!r}; give a number above 0")
    for name, least in _COUNTS.items():
        value = conf.get(name, least)
        if type(value) is not int or value < least:
            raise UserError(
                f"criterion_conf.{name} is {value!r}; give an integer from {least}"
            )
    given = [name for name in ("teacher", "teacher_store") if conf.get(name)]
    if source != "teacher" and given:
        raise UserError(
            f"criterion_conf.{given[0]} is for source: teacher; set it, or remove "
            f"{given[0]}"
        )
