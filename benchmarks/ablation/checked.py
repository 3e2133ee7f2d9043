"""JSON files whose values are checked when they are read."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError


class Json:
    """A value in a file; errors name the file and the path to the value."""

    def __init__(self, path: Path, where: str, value: Any) -> None:
        self.path, self.where, self.value = path, where, value

    def wrong(self, wanted: str) -> UserError:
        return UserError(f"{self.path}: {self.where or 'the file'}: {wanted}")

    def items(self) -> "list[tuple[str, Json]]":
        if not isinstance(self.value, dict):
            raise self.wrong("must be an object")
        prefix = f"{self.where}." if self.where else ""
        return [
            (str(k), Json(self.path, f"{prefix}{k}", v)) for k, v in self.value.items()
        ]

    def at(self, key: str) -> "Json":
        found = dict(self.items())
        if key not in found:
            raise self.wrong(f"has no {key!r}; collect the cell again")
        return found[key]

    def list(self) -> "list[Json]":
        if not isinstance(self.value, list):
            raise self.wrong("must be a list")
        return [
            Json(self.path, f"{self.where}[{i}]", v) for i, v in enumerate(self.value)
        ]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.wrong("must be a text")
        return self.value

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.wrong("must be a number")
        return float(self.value)

    def count(self) -> int:
        value = self.number()
        if not math.isfinite(value) or value < 0 or value != int(value):
            raise self.wrong("must be a whole number from 0")
        return int(value)

    def counts(self, length: int) -> tuple[int, ...]:
        found = tuple(item.count() for item in self.list())
        if len(found) != length:
            raise self.wrong(f"must be {length} numbers, not {len(found)}")
        return found

    def mapped(self, read: "Callable[[Json], Any]") -> dict[str, Any]:
        return {key: read(item) for key, item in self.items()}


def load_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
