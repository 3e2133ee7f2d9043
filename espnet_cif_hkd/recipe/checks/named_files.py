"""The files that options and configurations name, for fingerprints."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


def in_options(*texts: str) -> list[str]:
    """Return the existing files among the words of options.

    Args:
        texts: options, such as ``--init_param a.pth:encoder:encoder``.
    """
    words = re.split(r"[\s:=,]+", " ".join(texts))
    return [word for word in words if os.path.isfile(word)]


def in_config(file: str, without: tuple[str, ...] = ()) -> list[str]:
    """Return the existing files that the values of a configuration name.

    Args:
        file: a YAML file. One that is missing or cannot be read, which other checks
            report, names none.
        without: keys of its outer mapping whose values are left out.
    """
    import yaml

    config: Any = None
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        config = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        return []
    kept = [value for key, value in config.items() if key not in without]
    return in_options(*_strings(kept))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
