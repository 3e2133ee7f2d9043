"""The teacher of an HKD configuration: checks before a training, filling its store."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_cif_hkd.distill.criterion import Sentences, check_signature
from espnet_cif_hkd.distill.hkd import HKDCriterion, teacher_config
from espnet_cif_hkd.distill.options import LEVELS, levels, wanted_taps
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.store.header import StoreHeader, check_header
from espnet_cif_hkd.teachers.store.reader import StoreReader
from espnet_cif_hkd.teachers.store.writer import dump_store
from espnet_cif_hkd.teachers.text.alignment import closing_token
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import (
    TeacherConfig,
    open_config,
    open_tokenizer,
    resolve_teacher,
    unknown_text,
)
from espnet_cif_hkd.teachers.text.spelling import TokenSpeller


@dataclass(frozen=True)
class TeacherReport:
    """What a check has found.

    Attributes:
        teacher: its name.
        unknown_tokens: tokens of the list that the PLM does not know.
        store: "none", "to be dumped" or "present".
    """

    teacher: str
    unknown_tokens: list[str]
    store: str


def check_teacher(
    criterion_conf: Mapping[str, Any],
    token_list: Sequence[str] | None,
    token_type: str | None = None,
) -> TeacherReport | None:
    """Check everything about a teacher that does not need its weights.

    Reads config.json and the tokenizer, or only the store where one is present:
    a second or two.

    Args:
        criterion_conf: of the model's configuration.
        token_list: of the ASR model; None where it does not exist yet: then what
            depends on it, and the store, is left out.
        token_type: of the ASR model. The criterion knows only
            ``criterion_conf.token_type`` and infers it from the tokens when that is
            null: a wrong guess is refused here. None believes it.

    Returns:
        None when both weights are 0, so that no teacher is needed.

    Raises:
        UserError: says what is wrong and how to fix it.
    """
    conf = dict(criterion_conf)
    check_signature(HKDCriterion, conf)
    chosen = [conf.get(name, default) for name, default in LEVELS.items()]
    if not wanted_taps(*levels(*chosen)):
        return None
    config = teacher_config(conf)
    store = conf.get("teacher_store")
    state = "to be dumped" if store else "none"
    if token_list is None:
        _open(config)
        return TeacherReport(config.name, [], state)
    speller = TokenSpeller(token_list, conf.get("token_type"), case=config.case)
    if token_type and TokenSpeller(token_list, token_type).style != speller.style:
        raise UserError(
            f"criterion_conf.token_type is {conf.get('token_type')} and read as "
            f"{speller.token_type}, but the model's tokens are {token_type}; set "
            f"criterion_conf.token_type to {token_type}"
        )
    token_type = speller.token_type
    if store and (Path(store) / "header.json").exists():
        header = StoreHeader.read(Path(store))
        check_header(Path(store), header, config, token_list, token_type)
        StoreReader(Path(store), header.dim)
        return TeacherReport(config.name, [], "present")

    tokenizer = _open(config)
    speller = TokenSpeller(token_list, token_type, unknown_text(tokenizer), config.case)
    unknown, n_texts = unknown_tokens(speller, token_list, tokenizer)
    if n_texts and len(unknown) == n_texts:
        raise UserError(
            f"teacher {config.name}: its tokenizer knows none of the {n_texts} tokens "
            "of the token list; choose a teacher of this language, or get a complete "
            "copy"
        )
    if unknown:
        logging.warning(
            "teacher %s does not know %d of %d tokens (it reads them as its unknown "
            "token): %s",
            config.name,
            len(unknown),
            len(token_list),
            " ".join(unknown[:20]),
        )
    return TeacherReport(config.name, unknown, state)


def fill_teacher_store(
    criterion_conf: Mapping[str, Any], folder: str, sentences: Sentences
) -> None:
    """Add to a store the vectors of the sentences that it lacks.

    Args:
        criterion_conf: of the model's configuration.
        folder: the store, in place of its ``teacher_store``.
        sentences: the training texts.

    Raises:
        UserError: the teacher or the store does not fit, or the disk is full.
    """
    conf = {**criterion_conf, "teacher_store": folder}
    token_list = sentences.token_list
    if check_teacher(conf, token_list, sentences.token_type) is None:
        logging.info("both weights are 0: %s needs no vectors", folder)
        return
    # As the criterion of the training, which does not know --token_type.
    teacher = OnlineTeacher(teacher_config(conf), token_list, conf.get("token_type"))
    begin = time.monotonic()
    report = dump_store(
        Path(folder),
        sentences.sequences,
        teacher,
        sentences.device,
        shard_bytes=sentences.shard_bytes,
    )
    if teacher.n_unknown:
        logging.warning(
            "teacher %s does not know %d words of the new sentences: %s",
            teacher.config.name,
            teacher.n_unknown,
            " ".join(sorted(teacher.unknown)[:20]),
        )
    if teacher.n_unk:
        logging.warning(
            "%d tokens of the new sentences are <unk>; the teacher reads them as its "
            "own unknown token",
            teacher.n_unk,
        )
    logging.info(
        "%s: %d sentences (%d tokens) added in %.0f s",
        folder,
        report.n_sentences,
        report.n_tokens,
        time.monotonic() - begin,
    )


def _open(config: TeacherConfig) -> Any:
    """The tokenizer of a teacher that has all it needs."""
    open_config(config)
    folder = Path(resolve_teacher(config.name))
    kinds = ("*.safetensors", "*.bin")
    if folder.is_dir() and not any(any(folder.glob(kind)) for kind in kinds):
        raise UserError(
            f"teacher {config.name}: the folder holds no weights "
            f"({' or '.join(kinds)}); get a complete copy"
        )
    tokenizer = open_tokenizer(config)
    closing_token(tokenizer)
    return tokenizer


def unknown_tokens(
    speller: TokenSpeller, token_list: Sequence[str], tokenizer: Any
) -> tuple[list[str], int]:
    """Tokens whose text the PLM does not know, and how many of them have text.

    ``<unk>`` itself counts for neither.
    """
    texts, names = [], []
    for token_id, name in enumerate(token_list):
        spelling = speller([token_id])
        if spelling.text.strip() and not spelling.unknown:
            texts.append(spelling.text)
            names.append(name)
    if not texts:
        return [], 0
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)
    unknown = [
        name
        for name, ids in zip(names, encoded["input_ids"], strict=True)
        if tokenizer.unk_token_id in ids
    ]
    return unknown, len(names)
