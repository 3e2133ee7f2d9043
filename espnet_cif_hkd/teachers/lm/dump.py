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
    measure,
    refuse_bad,
)
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher
from espnet_cif_hkd.teachers.lm.stored import StoredLM
from espnet_cif_hkd.teachers.store.header import HEADER
from espnet_cif_hkd.teachers.store.writer import SHARD_BYTES, DumpReport, dump_store

QUALITY = "quality.json"

Sentences = Callable[[], Iterable[Tokens]]


def fill_labels(
    conf: Mapping[str, Any],
    token_list: Sequence[str],
    sentences: Sentences,
    folder: str,
    device: torch.device,
    shard_bytes: int = SHARD_BYTES,
    counted: Sentences | None = None,
) -> Quality | None:
    """Add the labels of missing sentences to a store.

    If a sentence is missing, the LM first runs on a sample of the text: the log has its
    perplexity and the accuracy of its labels, ``quality.json`` in the store keeps them,
    and an LM that is worse than unigram probabilities is refused before hours are
    spent. At the end the store is compared with the labels of the sample.

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

    Returns:
        The quality of the labels; None for a text without units.

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
        checked = _Checked(teacher, sentences, Path(folder), device)
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
        sentences: Sentences,
        folder: Path,
        device: torch.device,
    ):
        self._teacher, self._sentences = teacher, sentences
        self._folder, self._device = folder, device
        self._sample: Sample | None = None
        self._expected: Targets | None = None
        self.quality: Quality | None = None

    def before(self, missing: DumpReport) -> None:
        """Measure the LM if labels are missing; log its quality.

        Raises:
            UserError: It knows too little about the text.
        """
        teacher = self._teacher
        if not missing.n_items:
            self.quality = read_quality(self._folder)
        if self.quality is None:
            sample = Sample(
                self._sentences(), teacher.sample_units, len(teacher.token_list)
            )
            teacher.open()
            for remark in teacher.examine(sample.items):
                logging.warning("lm %s: %s", teacher.name, remark)
            self.quality, self._expected = measure(teacher, sample, self._device)
            self._sample = sample
        if self.quality is None:
            return
        logging.info(
            "lm %s, temperature %g: %s",
            *(teacher.name, teacher.temperature, self.quality),
        )
        if self._sample is not None and not teacher.is_control:
            refuse_bad(teacher.name, self.quality)

    def after(self) -> None:
        """Compare the store with the labels of the sample; keep the quality."""
        if self._sample is None or self._expected is None or not self._sample.items:
            return
        stored = StoredLM(str(self._folder), self._teacher)
        check_stored(str(self._folder), stored, self._sample.items, self._expected)
        if self.quality is not None:
            text = json.dumps(asdict(self.quality), indent=2) + "\n"
            try:
                write_text(self._folder / QUALITY, text)
            except OSError as e:
                raise UserError(
                    f"label_store {self._folder}: cannot write {QUALITY} ({e}); the "
                    "labels are complete: make room and run the same command again"
                ) from e


def read_quality(folder: Path) -> Quality | None:
    """Return the quality that the last dump has measured; None if there is none."""
    try:
        return Quality(**json.loads((folder / QUALITY).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
