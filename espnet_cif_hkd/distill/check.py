"""Look at a configuration's teacher before hours are spent on a training."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_cif_hkd.distill.alignment import closing_token
from espnet_cif_hkd.distill.hkd import HKDCriterion, teacher_config
from espnet_cif_hkd.distill.store import StoreHeader, StoreReader, check_header
from espnet_cif_hkd.distill.teacher import (
    open_config,
    open_tokenizer,
    resolve_teacher,
    unknown_text,
)
from espnet_cif_hkd.distill.units import TokenSpeller
from espnet_cif_hkd.errors import UserError


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
    token_list: Sequence[str],
    token_type: str | None = None,
) -> TeacherReport | None:
    """Check everything about a teacher that does not need its weights.

    Reads config.json and the tokenizer, or only the store where one is present:
    a second or two.

    Args:
        criterion_conf: of the model's configuration.
        token_list: of the ASR model.
        token_type: of the ASR model; ``criterion_conf.token_type`` goes before it,
            None infers it.

    Returns:
        None when both weights are 0, so that no teacher is needed.

    Raises:
        UserError: says what is wrong and how to mend it.
    """
    conf = dict(criterion_conf)
    token_type = conf.get("token_type") or token_type
    try:
        criterion = HKDCriterion(token_list, 1, 1, **conf)
    except TypeError as e:
        raise UserError(f"criterion_conf: {e}; correct the name of the option") from e
    if not list(criterion.parameters()):
        return None
    config = teacher_config(conf)
    TokenSpeller(token_list, token_type, case=config.case)
    store = conf.get("teacher_store")
    if store and (Path(store) / "header.json").exists():
        header = StoreHeader.read(Path(store))
        check_header(Path(store), header, config, token_list, token_type)
        StoreReader(Path(store), header.dim)
        return TeacherReport(config.name, [], "present")

    open_config(config)
    _check_weights(config.name)
    tokenizer = open_tokenizer(config)
    closing_token(tokenizer)
    speller = TokenSpeller(token_list, token_type, unknown_text(tokenizer), config.case)
    unknown = unknown_tokens(speller, token_list, tokenizer)
    if unknown:
        logging.warning(
            "teacher %s does not know %d of %d tokens (it reads them as its unknown "
            "token): %s",
            config.name,
            len(unknown),
            len(token_list),
            " ".join(unknown[:20]),
        )
    return TeacherReport(config.name, unknown, "to be dumped" if store else "none")


def _check_weights(name: str) -> None:
    folder = Path(resolve_teacher(name))
    kinds = ("*.safetensors", "*.bin")
    if folder.is_dir() and not any(any(folder.glob(kind)) for kind in kinds):
        raise UserError(
            f"teacher {name}: the folder holds no weights ({' or '.join(kinds)}); get "
            "a complete copy"
        )


def unknown_tokens(
    speller: TokenSpeller, token_list: Sequence[str], tokenizer: Any
) -> list[str]:
    """Tokens whose text the PLM does not know; ``<unk>`` itself is none of them."""
    texts, names = [], []
    for token_id, name in enumerate(token_list):
        spelling = speller([token_id])
        if spelling.text.strip() and not spelling.unknown:
            texts.append(spelling.text)
            names.append(name)
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)
    return [
        name
        for name, ids in zip(names, encoded["input_ids"], strict=True)
        if tokenizer.unk_token_id in ids
    ]
