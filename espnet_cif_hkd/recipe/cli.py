"""The command line of the engine."""

import errno
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.processes import Stopped, signals_stop
from espnet_cif_hkd.plugin.user_modules import add_user_modules
from espnet_cif_hkd.recipe import options, paths
from espnet_cif_hkd.recipe.context import Run

# Errors of the file system that the user can fix.
_FIXABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
_FIXABLE |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


def main(cmd: Sequence[str] | None = None) -> int:
    """Run ``python3 -m espnet_cif_hkd.recipe``; returns the exit status.

    Bad input gives one line that begins with ``error:``, and status 1. A signal that
    ends the run gives such a line, and status 128 plus its number.
    """
    arguments = list(sys.argv[1:] if cmd is None else cmd)
    if "--help" in arguments or "-h" in arguments:
        print(options.help_text())
        return 0
    try:
        if arguments[:1] == ["init"]:
            from espnet_cif_hkd.recipe.layout import init

            init(arguments[1:])
            return 0
        with signals_stop():
            run_recipe(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except OSError as error:
        if error.filename is None or error.errno not in _FIXABLE:
            raise
        print(
            f"error: {error.filename}: {error.strerror}: correct this and run the same "
            "stages again",
            file=sys.stderr,
            flush=True,
        )
        return 1
    except Stopped as signal:
        print(
            f"error: stopped by {signal}: run the same command again to continue",
            file=sys.stderr,
            flush=True,
        )
        return 128 + signal.number
    return 0


def run_recipe(arguments: Sequence[str]) -> None:
    """Run the stages that a command line of ``asr.sh`` asks for, in this folder.

    Raises:
        UserError: bad input, or a stage that failed.
    """
    parsed = options.parse(arguments)
    add_user_modules(parsed.user_module)
    # The stage modules import numpy and soundfile: after the options are known good.
    from espnet_cif_hkd.recipe import plan as stages

    paths.sampling_rate(parsed.fs)
    run = Run(parsed, paths.derive(parsed), arguments, stages.selected(parsed))
    _require_writable(run)
    stages.run_stages(run)


def _require_writable(run: Run) -> None:
    """Refuse folders that the stages of a run cannot write to.

    With ``--reuse true`` stages may have nothing to write.
    """
    from espnet_cif_hkd.io.disk import require_writable

    if run.options.reuse:
        return
    for first, last, folder in (
        (1, 2, "data"),
        (3, 4, run.options.dumpdir),
        (5, 5, str(run.paths.token_list.parent)),
        (6, 14, run.options.expdir),
    ):
        if any(first <= stage <= last for stage in run.stages):
            require_writable(Path(folder))
