"""Check the teacher of an HKD configuration before a training; fill its store."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_cif_hkd.distill.criterion import Sentences, check_signature
from espnet_cif_hkd.distill.hkd import HKDCriterion
from espnet_cif_hkd.distill.options import LEVELS, levels, wanted_taps
from espnet_cif_hkd.teachers.check import TeacherReport, check_text_teacher
from espnet_cif_hkd.teachers.registry import build_text_teacher
from espnet_cif_hkd.teachers.store.writer import dump_store
from espnet_cif_hkd.teachers.text.online import OnlineTeacher

__all__ = ["TeacherReport", "add_vectors", "check_teacher", "fill_teacher_store"]


def check_teacher(
    criterion_conf: Mapping[str, Any],
    token_list: Sequence[str] | None,
    token_type: str | None = None,
) -> TeacherReport | None:
    """Check the options of HKD and its teacher; see :func:`check_text_teacher`.

    Returns:
        The report; None if both weights are 0, which needs no teacher.

    Raises:
        UserError: an option, the teacher or the store is wrong.
    """
    conf = dict(criterion_conf)
    check_signature(HKDCriterion, conf)
    chosen = [conf.get(name, default) for name, default in LEVELS.items()]
    if not wanted_taps(*levels(*chosen)):
        return None
    return check_text_teacher(conf, token_list, token_type)


def fill_teacher_store(
    criterion_conf: Mapping[str, Any], folder: str, sentences: Sentences
) -> None:
    """Add the vectors of missing sentences to a store.

    Args:
        criterion_conf: options of HKD in the model's configuration.
        folder: the store; overrides ``teacher_store``.
        sentences: the training texts.

    Raises:
        UserError: the teacher or the store does not fit, or the disk is full.
    """
    conf = {**criterion_conf, "teacher_store": folder}
    if check_teacher(conf, sentences.token_list, sentences.token_type) is None:
        logging.info("both weights are 0: %s needs no vectors", folder)
        return
    add_vectors(conf, folder, sentences)


def add_vectors(conf: Mapping[str, Any], folder: str, sentences: Sentences) -> None:
    """Add the vectors of missing sentences to a store, by a checked teacher.

    Args:
        conf: options of the teacher.
        folder: the store.
        sentences: the texts.

    Raises:
        UserError: the teacher or the store does not fit, or the disk is full.
    """
    # The criterion of the training does not know --token_type either.
    kind = conf.get("token_type")
    teacher = build_text_teacher(conf, sentences.token_list, kind, stored=False)
    begin = time.monotonic()
    report = dump_store(
        Path(folder),
        sentences.sequences,
        teacher,
        sentences.device,
        shard_bytes=sentences.shard_bytes,
    )
    if isinstance(teacher, OnlineTeacher) and teacher.n_unknown:
        logging.warning(
            "teacher %s does not know %d words of the new sentences: %s",
            teacher.config.name,
            teacher.n_unknown,
            " ".join(sorted(teacher.unknown)[:20]),
        )
    if isinstance(teacher, OnlineTeacher) and teacher.n_unk:
        logging.warning(
            "%d tokens of the new sentences are <unk>; the teacher reads them as its "
            "own unknown token",
            teacher.n_unk,
        )
    logging.info(
        "%s: %d sentences (%d tokens) added in %.0f s",
        folder,
        report.n_items,
        report.n_rows,
        time.monotonic() - begin,
    )
