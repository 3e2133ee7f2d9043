"""Names the pip command for a package that is not installed."""

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from espnet_cif_hkd.errors import UserError, one_line

_PROJECT = "espnet-cif-hkd"
_PIP = "python3 -m pip install"
# Modules whose name is not that of their package. espnet2 needs the extra and, before
# Python 3.12, a command of its own: see docs/install.md.
_PACKAGE = {
    "g2p_en": "espnet-g2p-en",
    "yaml": "PyYAML",
}
_ESPNET = ("espnet", "espnet2", "espnet3", "espnet_model_zoo", "torchaudio")
# ESPnet 202611 requires them; the extra names some of them for 202511.
_OF_ESPNET = ("humanfriendly", "hydra", "omegaconf", "scipy", "sentencepiece")
# The release without its requirements, which the extra installs.
_ESPNET_202511 = f"{_PIP} --no-deps espnet==202511 espnet_model_zoo torchaudio"
_UNFIT = (
    "torchaudio does not load beside this torch: install both from one package "
    "index, or remove torchaudio's libraries (docs/install.md, CUDA)"
)


def how_to_install(module: str) -> str | None:
    """Return the pip command that installs what a module belongs to.

    Args:
        module: Name of a module that cannot be found, such as ``transformers.models``.

    Returns:
        None for a package that neither this package nor an extra of it requires.

    Example:
        >>> how_to_install("safetensors.torch")
        "python3 -m pip install 'espnet-cif-hkd[teacher]'"
    """
    root = module.partition(".")[0]
    package = _PACKAGE.get(root, root.replace("_", "-"))
    name = _extras().get(package.lower())
    if root in _ESPNET or (name is None and root in _OF_ESPNET):
        extra = f"{_PIP} '{_PROJECT}[espnet]'"
        return extra if sys.version_info >= (3, 12) else f"{extra} && {_ESPNET_202511}"
    if name is None:
        return None
    return f"{_PIP} '{_PROJECT}[{name}]'" if name else f"{_PIP} {package}"


def _extras() -> dict[str, str]:
    """Return the first extra of this package that installs each of its requirements."""
    try:
        lines = importlib.metadata.requires(_PROJECT) or []
    except importlib.metadata.PackageNotFoundError:  # a checkout on PYTHONPATH
        return {}
    found: dict[str, str] = {}
    other = "<" if sys.version_info >= (3, 12) else ">="  # ESPnet 202511, 202611
    for line in lines:
        if f"python_version {other} " in line:
            continue
        name, marker = (
            re.match(r"[\w.-]+", line),
            re.search(r"extra == ['\"](\w+)", line),
        )
        if name:
            key = name[0].replace("_", "-").lower()
            found.setdefault(key, marker[1] if marker else "")
    return found


def command_for(error: ModuleNotFoundError) -> str | None:
    """Return :func:`how_to_install`; None if a package lacks one of its modules."""
    root = (error.name or "").partition(".")[0]
    return None if root in sys.modules else how_to_install(root)


@contextmanager
def missing_named() -> Iterator[None]:
    """Turn the error of a package that is not installed into a ``UserError``.

    Raises:
        UserError: A package that an extra of this package installs cannot be found; the
            message has the command of pip. Or torchaudio was built for another torch.
            Errors of other modules pass through.
    """
    try:
        yield
    except OSError as error:
        if type(error) is not OSError or "_torchaudio" not in str(error):
            raise
        raise UserError(f"{_UNFIT}: {one_line(error, 200)}") from error
    except ModuleNotFoundError as error:
        command = command_for(error)
        if command is None:
            raise
        root = (error.name or "").partition(".")[0]
        raise UserError(f"{root} is not installed; run: {command}") from error
