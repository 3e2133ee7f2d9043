"""CIF speech recognition with hierarchical knowledge distillation, for ESPnet2.

Importing this package is cheap: torch, ESPnet and transformers are imported when a
name that needs them is used.

Public names:
    register: Make ESPnet know the classes of this package.
    Speech2Text: ESPnet's ``Speech2Text`` with these classes registered, greedy search
        and checks of the audio.
    CIFASRModel, CIFDecoder: The classes that ESPnet knows as ``cif``.
    UserError: Raised for input that a user can fix.
    __version__: The version of this package.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
    from espnet_cif_hkd.errors import UserError
    from espnet_cif_hkd.inference.speech2text import Speech2Text
    from espnet_cif_hkd.models.cif import CIFASRModel
    from espnet_cif_hkd.plugin import register

__version__ = "0.4.0"

__all__ = [
    "CIFASRModel",
    "CIFDecoder",
    "Speech2Text",
    "UserError",
    "__version__",
    "register",
]

_HOME = {
    "CIFASRModel": "models.cif",
    "CIFDecoder": "decoder.cif_decoder",
    "Speech2Text": "inference.speech2text",
    "UserError": "errors",
    "register": "plugin",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        from espnet_cif_hkd.io.missing import command_for

        command = command_for(error)
        if command is None:
            raise
        raise ModuleNotFoundError(
            f"{error}; run: {command}", name=error.name
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
