"""``header.json`` of a store: teacher, options and format of the targets."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.teachers.base import AbsTeacher
from espnet_cif_hkd.teachers.payload import Payload

FORMAT = 2
HEADER = "header.json"
CACHE = ".files.json"  # hashes of the teacher's large files
# Names and sizes, which are not compared.
_NOT_COMPARED = ("name", "revision", "num_layers", "n_tokens", "alignment")
# Commands that fill a store, by the kind of the payload.
_COMMANDS = {
    "tokens": "cli.dump_teacher with the texts",
    "frames": "cli.dump_speech_teacher with the data folders",
    # Not dump_lm_labels, which reads no alignment.
    "labels": "cli.dump_teacher with the texts",
}
_CURE = "correct the configuration, or dump into another folder"


class OtherTeacherError(UserError):
    """A store was made by another teacher, or with other options.

    Args:
        reason: the difference.
        cure: what the user can do.

    Attributes:
        reason: the difference, for a caller that fills the store again.
    """

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(f"{reason}; {cure}")
        self.reason = reason


@dataclass(frozen=True)
class StoreHeader:
    """Content of ``header.json``.

    Attributes:
        payload: kind, width and coding of the targets.
        teacher: result of :meth:`AbsTeacher.describe`; ``layer`` counts from the
            embedding.
        fingerprint: hash of the teacher's content; None for a store of version 0.2.
        old_fingerprint: fingerprint in the format of version 0.2.
    """

    payload: Payload
    teacher: dict[str, Any]
    fingerprint: str | None
    old_fingerprint: str | None = None

    @classmethod
    def read(cls, folder: Path) -> "StoreHeader":
        """Read the header of the store in ``folder``.

        Raises:
            UserError: the header is missing, damaged or of an unknown format.
        """
        path = folder / HEADER
        again = "restore it from a copy, or delete the store and dump it again"
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if values.get("format") == 1:
                from espnet_cif_hkd.teachers.store.v1 import old_header

                return old_header(values)
            if values.get("format") == FORMAT:
                payload = Payload(**values["payload"])
                return cls(payload, dict(values["teacher"]), values["fingerprint"])
        except FileNotFoundError as e:
            raise UserError(
                f"teacher_store {folder}: there is no {HEADER} in it; {dump_hint()}"
            ) from e
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror})") from e
        except (ValueError, LookupError, TypeError, AttributeError) as e:
            raise UserError(f"{path}: is damaged ({e}); {again}") from e
        raise UserError(
            f"{path}: format {values.get('format')} is unknown to this version, which "
            f"reads 1 and {FORMAT}; use the version that made the store"
        )

    def write(self, folder: Path) -> None:
        """Write the header; the file appears only when it is complete.

        Raises:
            OSError: the file cannot be written.
        """
        values = {
            "format": FORMAT,
            "payload": asdict(self.payload),
            "teacher": self.teacher,
            "fingerprint": self.fingerprint,
        }
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        write_text(folder / HEADER, text)


def check_header(folder: Path, header: StoreHeader, teacher: AbsTeacher[Any]) -> None:
    """Check that a store was made for ``teacher`` and its current files.

    The path of the teacher does not matter. If the files are not on this machine, a
    warning is logged and the store is accepted.

    Raises:
        OtherTeacherError: the teacher, its content or an option differs.
        UserError: the files of the teacher are not here, and its name differs; or
            another version made the store.
    """
    _check_options(folder, header, teacher)
    asked = teacher.describe()
    found = teacher.fingerprint(folder / CACHE)
    if found is None:
        for field in ("name", "revision"):
            made = header.teacher.get(field)
            if made != asked.get(field):
                raise UserError(
                    f"teacher_store {folder}: made for teacher {field} {made}, but the "
                    f"configuration asks for {asked.get(field)}, whose files are not "
                    f"here to compare; {_CURE}"
                )
        logging.warning(
            "teacher_store %s: the files of teacher %s are not on this machine; the "
            "store is used without checking whether they have changed",
            folder,
            asked.get("name"),
        )
    elif header.old_fingerprint is not None:
        logging.warning(
            "teacher_store %s: version 0.2 made it; the content of its teacher is only "
            "compared by the next dump_teacher",
            folder,
        )
    elif header.fingerprint != found:
        raise other_content(folder, teacher)


def other_content(folder: Path, teacher: AbsTeacher[Any]) -> OtherTeacherError:
    """Return the error for a store whose teacher has changed."""
    return OtherTeacherError(
        f"teacher_store {folder}: made with other weights, another tokenizer or "
        f"another config.json than teacher {teacher.describe().get('name')} has now",
        "restore its files, or dump into another folder",
    )


def _check_options(folder: Path, header: StoreHeader, teacher: AbsTeacher[Any]) -> None:
    asked, made = teacher.describe(), header.teacher
    if header.payload.width != teacher.payload.width:
        field = "top_k" if teacher.payload.kind == "labels" else "teacher_dim"
        raise _made_for(folder, field, header.payload.width, teacher.payload.width)
    if header.payload != teacher.payload:
        raise _made_for(folder, "targets", header.payload, teacher.payload)
    for field, value in asked.items():
        if field in _NOT_COMPARED:
            continue
        wanted = _from_first(value, made) if field == "layer" else value
        if made.get(field) == wanted:
            continue
        if field == "token list":
            raise OtherTeacherError(
                f"teacher_store {folder}: made for another token list "
                f"({made.get('n_tokens')} tokens, this one has {asked['n_tokens']})",
                _CURE,
            )
        raise _made_for(folder, field, made.get(field), value)
    alignment = made.get("alignment")
    if alignment is not None and alignment != asked.get("alignment"):
        raise UserError(
            f"teacher_store {folder}: another version made it, which aligned tokens "
            "in another way; dump into another folder"
        )


def _from_first(layer: Any, made: dict[str, Any]) -> Any:
    """Count layers, one or a list of them, from the embedding."""
    if isinstance(layer, list):
        return [_from_first(one, made) for one in layer]
    return layer + made["num_layers"] + 1 if layer < 0 else layer


def _made_for(
    folder: Path, field: str, made: object, asked: object
) -> OtherTeacherError:
    return OtherTeacherError(
        f"teacher_store {folder}: made for {field} {made}, but the configuration asks "
        f"for {asked}",
        _CURE,
    )


def dump_hint(kind: str | None = None) -> str:
    """Return the command that fills a store, for messages.

    Args:
        kind: Kind of the payload; None if it is unknown.
    """
    any_of = ", or ".join(dict.fromkeys(_COMMANDS.values()))
    command = _COMMANDS.get(kind or "", f"{any_of},")
    return (
        f"run: python3 -m espnet_cif_hkd.{command} of training and validation (it adds "
        "what is missing)"
    )
