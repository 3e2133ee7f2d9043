"""Whose vectors a store holds: its ``header.json``."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.text.plm import TeacherConfig, layer_index
from espnet_cif_hkd.teachers.text.spelling import infer_token_type

FORMAT = 1
KEY_BYTES = 16
_HEADER = "header.json"


def token_list_hash(token_list: Sequence[str]) -> str:
    """Hash of the tokens in their order."""
    data = "\n".join(token_list).encode("utf-8", errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=KEY_BYTES).hexdigest()


@dataclass(frozen=True)
class StoreHeader:
    """What the vectors of a store are; ``layer`` counts from the embedding."""

    format: int
    teacher: str
    revision: str | None
    dim: int
    layer: int
    num_layers: int
    dtype: str
    case: str
    token_type: str
    n_tokens: int
    token_list: str
    fingerprint: str

    @classmethod
    def read(cls, folder: Path) -> "StoreHeader":
        """Header of the store in ``folder``.

        Raises:
            UserError: there is none, or it is damaged or of another format.
        """
        path = folder / _HEADER
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as e:
            raise UserError(
                f"teacher_store {folder}: there is no {_HEADER} in it; {dump_hint()}"
            ) from e
        except (OSError, ValueError) as e:
            raise UserError(
                f"{path}: cannot be read ({e}); delete the store and dump it anew"
            ) from e
        if values.get("format") != FORMAT:
            raise UserError(
                f"{path}: format {values.get('format')} is not {FORMAT}, the one this "
                "version reads; delete the store and dump it anew"
            )
        try:
            return cls(**values)
        except TypeError as e:
            raise UserError(f"{path}: {e}; delete the store and dump it anew") from e

    def write(self, folder: Path) -> None:
        """Write the header; it appears whole or not at all."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        write_atomically(folder / _HEADER, lambda f: f.write(text.encode()))


def header_for(
    config: TeacherConfig,
    token_list: Sequence[str],
    token_type: str | None,
    num_layers: int,
    fingerprint: str,
) -> StoreHeader:
    """Header of a store of this teacher for this token list."""
    return StoreHeader(
        format=FORMAT,
        teacher=config.name,
        revision=config.revision,
        dim=config.dim,
        layer=layer_index(config, num_layers),
        num_layers=num_layers,
        dtype=config.dtype,
        case=config.case,
        token_type=token_type or infer_token_type(token_list),
        n_tokens=len(token_list),
        token_list=token_list_hash(token_list),
        fingerprint=fingerprint,
    )


def check_header(
    folder: Path,
    header: StoreHeader,
    config: TeacherConfig,
    token_list: Sequence[str],
    token_type: str | None,
    fingerprint: str | None = None,
) -> None:
    """Refuse a store that was made for something else.

    Args:
        folder, header: the store.
        config, token_list, token_type: what is asked for.
        fingerprint: of the opened teacher, where it is opened.

    Raises:
        UserError: names what differs.
    """
    wanted = header_for(
        config, token_list, token_type, header.num_layers, header.fingerprint
    )
    names = {
        "teacher": "teacher",
        "revision": "teacher_revision",
        "dim": "teacher_dim",
        "layer": "layer",
        "dtype": "teacher_dtype",
        "case": "case",
        "token_type": "token type",
    }
    mend = "correct the configuration, or dump into another folder"
    for field, name in names.items():
        made, asked = getattr(header, field), getattr(wanted, field)
        if made != asked:
            if field == "layer":
                asked = config.layer
            raise UserError(
                f"teacher_store {folder}: made for {name} {made}, but the "
                f"configuration asks for {asked}; {mend}"
            )
    if header.token_list != wanted.token_list:
        raise UserError(
            f"teacher_store {folder}: made for another token list ({header.n_tokens} "
            f"tokens, this one has {wanted.n_tokens}); {mend}"
        )
    if fingerprint is not None and header.fingerprint != fingerprint:
        raise UserError(
            f"teacher_store {folder}: made with other weights or another tokenizer "
            f"than {config.name} has now; dump into another folder"
        )


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that is complete as soon as it has its name.

    Raises:
        OSError: as the system's; nothing of the file is left.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The new name itself is durable only once the folder is written.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def dump_hint() -> str:
    """How a store is filled, for messages."""
    return (
        "run: python3 -m espnet_cif_hkd.cli.dump_teacher with the texts of training "
        "and validation (it adds what is missing)"
    )
