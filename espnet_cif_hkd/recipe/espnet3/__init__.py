"""Recipes of ESPnet 3, ``egs3/CORPUS/esp2_asr``: their data, stages and scores."""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence

from espnet_cif_hkd.errors import UserError

# Modules that ESPnet 3 imports, but ESPnet requires only in its extra "train".
_NEEDED = {
    "dask": "dask[distributed]",
    "distributed": "dask[distributed]",
    "dask_jobqueue": "dask-jobqueue",
    "lightning": "lightning",
    "tensorboard": "tensorboard",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``run.py`` of a recipe; bad input ends the program with one line.

    Args:
        argv: The command line, by default that of the program.
    """
    try:
        require()
        from espnet_cif_hkd.recipe.espnet3.system import run

        run(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def require() -> None:
    """Check that ESPnet 3 and the packages that it imports are installed.

    Raises:
        UserError: Something is missing; the message has the command of pip.
    """
    if importlib.util.find_spec("espnet3") is None:
        try:
            found = f"this is ESPnet {importlib.metadata.version('espnet')}"
        except importlib.metadata.PackageNotFoundError:
            found = "ESPnet is not installed"
        raise UserError(
            "recipes of egs3 need ESPnet 3, which ESPnet 202611 has (Python 3.12), and "
            f"{found}: pip install espnet==202611, or use the recipe in egs2"
        )
    missing = sorted(
        {pip for name, pip in _NEEDED.items() if importlib.util.find_spec(name) is None}
    )
    if missing:
        words = " ".join(f"'{name}'" if "[" in name else name for name in missing)
        raise UserError(f"ESPnet 3 needs more packages: pip install {words}")
