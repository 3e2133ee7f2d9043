"""Fill a store with a language model's labels, after a check of the LM."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.teachers.base import Targets, Tokens
from espnet_cif_hkd.teachers.lm.controls import UnigramLM, count_units
from espnet_cif_hkd.teachers.lm.labels import LMTeacher, in_our_names, our_names
from espnet_cif_hkd.teachers.lm.quality import (
    Quality,
    Sample,
    check_stored,
    joined,
    measure,
    refuse_bad,
)
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher
from espnet_cif_hkd.teachers.lm.stored import StoredLM
from espnet_cif_hkd.teachers.store.header import HEADER
from espnet_cif_hkd.teachers.store.writer import SHARD_BYTES, DumpReport, dump_store

QUALITY = "quality.json"
THE_TEXT = "the text"  # name of a text whose caller gives none

Sentences = Callable[[], Iterable[Tokens]]


def fill_labels(
    conf: Mapping[str, Any],
    token_list: Sequence[str],
    sentences: Sentences,
    folder: str,
    device: torch.device,
    shard_bytes: int = SHARD_BYTES,
    counted: Sentences | None = None,
    texts: Mapping[str, Sentences] | None = None,
) -> dict[str, Quality]:
    """Add the labels of missing sentences to a store.

    If a sentence is missing, the LM first runs on a sample of each text: the log has
    its perplexity and the accuracy of its labels, ``quality.json`` in the store keeps
    them, and an LM that is worse than unigram probabilities on one of the texts is
    refused before hours are spent. At the end the store is compared with the labels of
    the samples.

    The unigram counts the units of the first text. For the first text itself it
    predicts each unit from all others.

    A store of another LM, of other weights or of other options is filled again, once
    the LM is found good; the log says why.

    Args:
        conf: Options of the LM, see :func:`build_lm_teacher`.
        token_list: Tokens of the unit.
        sentences: A function that returns the unit ids of all sentences, without
            ``<eos>``. They may repeat. It is called several times.
        folder: The store; overrides ``label_store``.
        device: Device of the LM.
        shard_bytes: Approximate size of one file of the store.
        counted: The sentences whose units are counted for ``lm_type: unigram``, if the
            file of counts does not exist; None: ``sentences``.
        texts: The same sentences by the name of the text that holds them, the training
            text first, then held-out ones; None: they are one text.

    Returns:
        The quality of the labels on each text that has units.

    Raises:
        UserError: The LM, the store or an option is wrong, or the disk is full. What
            is written is kept.
    """
    teacher = build_lm_teacher(conf, token_list, stored=False)
    with our_names():
        if isinstance(teacher, UnigramLM) and teacher.is_missing:
            units = (counted or sentences)()
            count_units(Path(teacher.name), teacher.token_list, units)
            logging.info("lm %s: counted the units of the text", teacher.name)
        if not (Path(folder) / HEADER).is_file():
            teacher.check()
        texts = texts or {THE_TEXT: sentences}
        checked = _Checked(teacher, texts, Path(folder), device)
        begin = time.monotonic()
        report = dump_store(
            Path(folder),
            sentences,
            teacher,
            device,
            shard_bytes=shard_bytes,
            announce=checked.before,
            replace=_log_stale,
        )
        seconds = max(time.monotonic() - begin, 1e-9)
        checked.after()
    logging.info(
        "%s: labels of %d sentences (%d units) added in %.0f s, %.0f units per second",
        *(folder, report.n_items, report.n_rows, seconds, report.n_rows / seconds),
    )
    return checked.quality


def _log_stale(reason: str) -> None:
    logging.warning("%s; computing all labels again", in_our_names(reason))


class _Checked:
    """Checks of an LM before its labels are dumped, and of the store after it."""

    def __init__(
        self,
        teacher: LMTeacher,
        texts: Mapping[str, Sentences],
        folder: Path,
        device: torch.device,
    ):
        self._teacher, self._texts = teacher, texts
        self._folder, self._device = folder, device
        # Sentences of the samples, and what the LM says of each sample.
        self._items: list[Tokens] = []
        self._expected: list[Targets] = []
        self.quality: dict[str, Quality] = {}

    def before(self, missing: DumpReport) -> None:
        """Measure the LM if labels are missing; log its quality.

        Raises:
            UserError: It knows too little about a text.
        """
        teacher = self._teacher
        if not missing.n_items:
            self.quality = read_quality(self._folder)
        if not self.quality:
            self._measure()
        for name, quality in self.quality.items():
            logging.info(
                "lm %s, temperature %g, on %s: %s",
                *(teacher.name, teacher.temperature, name, quality),
            )
        if self._items and not teacher.is_control:
            training = next(iter(self._texts))
            for name, quality in self.quality.items():
                refuse_bad(teacher.name, quality, name, held_out=name != training)

    def _measure(self) -> None:
        """Run the LM on a sample of each text; together they have its sample's size."""
        teacher = self._teacher
        n_units = -(-teacher.sample_units // len(self._texts))
        samples = [
            Sample(text(), n_units, len(teacher.token_list))
            for text in self._texts.values()
        ]
        self._items = [item for sample in samples for item in sample.items]
        teacher.open()
        for remark in teacher.examine(self._items):
            logging.warning("lm %s: %s", teacher.name, remark)
        for name, sample in zip(self._texts, samples, strict=True):
            counts = None if sample is samples[0] else samples[0].counts
            quality, targets = measure(teacher, sample, self._device, counts)
            if quality is not None:
                self.quality[name] = quality
            if sample.items:
                self._expected.append(targets)

    def after(self) -> None:
        """Compare the store with the labels of the samples; keep the quality."""
        if not self._items:
            return
        stored = StoredLM(str(self._folder), self._teacher)
        expected = joined(self._expected)
        check_stored(str(self._folder), stored, self._items, expected)
        if self.quality:
            found = {name: asdict(one) for name, one in self.quality.items()}
            text = json.dumps(found, indent=2) + "\n"
            try:
                write_text(self._folder / QUALITY, text)
            except OSError as e:
                raise UserError(
                    f"label_store {self._folder}: cannot write {QUALITY} ({e}); the "
                    "labels are complete: make room and run the same command again"
                ) from e


def read_quality(folder: Path) -> dict[str, Quality]:
    """Return the quality on each text that the last dump has measured, if any."""
    try:
        found = json.loads((folder / QUALITY).read_text(encoding="utf-8"))
        # Version 0.3.2 wrote the quality on all texts together.
        if "n_units" in found:
            found = {THE_TEXT: found}
        return {name: Quality(**one) for name, one in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
