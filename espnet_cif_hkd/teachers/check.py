"""Checks of a teacher and its store before a training."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.registry import build_text_teacher
from espnet_cif_hkd.teachers.store.reader import StoredTeacher
from espnet_cif_hkd.teachers.text.spelling import TokenSpeller


@dataclass(frozen=True)
class TeacherReport:
    """Result of a check.

    Attributes:
        teacher: name of the teacher.
        unknown_tokens: tokens of the list that the teacher does not know.
        store: "none", "to be dumped" or "present".
    """

    teacher: str
    unknown_tokens: list[str]
    store: str


def check_text_teacher(
    conf: Mapping[str, Any],
    token_list: Sequence[str] | None,
    token_type: str | None = None,
) -> TeacherReport:
    """Check a teacher and its store before a training begins.

    Without a store, this reads the options, configuration, tokenizer and weight names
    of the teacher. With a store, it reads only the store and the content of the
    teacher's files. A teacher without a store is also opened if the token list is
    known, because the training opens it only hours later.

    Args:
        conf: ``criterion_conf`` of the model's configuration.
        token_list: tokens of the ASR model; None if they do not exist yet. Then the
            store and everything that depends on the tokens is not checked.
        token_type: token type of the ASR model, to compare with that of the criterion,
            which reads ``criterion_conf.token_type`` or infers it from the tokens.
            None: not compared.

    Raises:
        UserError: the teacher, the store or an option is wrong.
    """
    tokens = list(token_list or [])
    teacher = build_text_teacher(conf, tokens, conf.get("token_type"), stored=False)
    name = str(teacher.describe().get("name"))
    store = conf.get("teacher_store")
    state = "to be dumped" if store else "none"
    if token_list is None:
        teacher.check()
        return TeacherReport(name, [], state)
    case = conf.get("case", "auto")
    speller = TokenSpeller(tokens, conf.get("token_type"), case=case)
    if token_type and TokenSpeller(tokens, token_type).style != speller.style:
        raise UserError(
            f"criterion_conf.token_type is {conf.get('token_type')} and read as "
            f"{speller.token_type}, but the model's tokens are {token_type}; set "
            f"criterion_conf.token_type to {token_type}"
        )
    if store and (Path(str(store)) / "header.json").exists():
        StoredTeacher(str(store), teacher).open()
        return TeacherReport(name, [], "present")
    unknown = teacher.check()
    if unknown:
        logging.warning(
            "teacher %s does not know %d of %d tokens (it reads them as its unknown "
            "token): %s",
            name,
            len(unknown),
            len(tokens),
            " ".join(unknown[:20]),
        )
    if not store:
        teacher.open()
    return TeacherReport(name, unknown, state)
