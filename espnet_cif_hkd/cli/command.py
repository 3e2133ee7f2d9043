"""What the main functions of commands share."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.file_errors import file_errors_named
from espnet_cif_hkd.io.missing import missing_named

PROGRAM = "espnet-cif"


def command_parser(file: str, description: str) -> argparse.ArgumentParser:
    """Return a parser without options for a command.

    Args:
        file: ``__file__`` of the command's module, which has its name.
        description: Shown by ``--help`` with its own line breaks.
    """
    return argparse.ArgumentParser(
        prog=f"{PROGRAM} {Path(file).stem.replace('_', '-')}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def exit_status(run: Callable[[], int | None]) -> int:
    """Run a command; return its exit status.

    A ``UserError``, a missing package, or an error of the file system that the user
    can fix is one line and 1.
    """
    try:
        with missing_named(), file_errors_named():
            return run() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run_logged(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], None],
    cmd: Sequence[str] | None,
) -> None:
    """Run a command with a log; its errors are those of :func:`exit_status`.

    Args:
        parser: Of the command line.
        run: The command.
        cmd: Arguments; None: those of the command line.
    """
    args = parser.parse_args(cmd)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s"
    )
    if status := exit_status(lambda: run(args)):
        sys.exit(status)
