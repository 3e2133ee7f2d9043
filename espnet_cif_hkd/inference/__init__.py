"""Recognition: Speech2Text, and pictures of its results.

Importing this package is cheap: the modules of its names are imported when a name is
used.

Public names:
    Recognizer: A trained model with its search, calibration and sampling rate.
    Recognition: Text, tokens, words and segments with times and confidences.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espnet_cif_hkd.inference.recognition import Recognition
    from espnet_cif_hkd.inference.recognizer import Recognizer

__all__ = ["Recognition", "Recognizer"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{name.lower()}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
