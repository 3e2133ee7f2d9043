"""The command line of the engine."""

import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.file_errors import file_errors_named
from espnet_cif_hkd.io.missing import missing_named
from espnet_cif_hkd.io.processes import Stopped, signals_stop
from espnet_cif_hkd.plugin.user_modules import add_user_modules
from espnet_cif_hkd.recipe import options, paths
from espnet_cif_hkd.recipe.context import Run


def main(cmd: Sequence[str] | None = None) -> int:
    """Run ``python3 -m espnet_cif_hkd.recipe``; return the exit status.

    For bad input it prints one line that begins with ``error:``, and the status is 1.
    For a signal it prints such a line, and the status is 128 + its number.
    """
    arguments = list(sys.argv[1:] if cmd is None else cmd)
    if "--help" in arguments or "-h" in arguments:
        print(options.help_text())
        return 0
    try:
        if arguments[:1] == ["init"]:
            from espnet_cif_hkd.recipe.layout import init

            with file_errors_named():
                init(arguments[1:])
            return 0
        with signals_stop(), missing_named(), file_errors_named():
            run_recipe(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
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
    """Run the stages of a command line of ``asr.sh`` in the working directory.

    Raises:
        UserError: an input is wrong, or a stage failed.
    """
    parsed = options.parse(arguments)
    add_user_modules(parsed.user_module)
    # The stage modules import numpy and soundfile; wrong options are reported before.
    from espnet_cif_hkd.recipe import plan as stages

    paths.sampling_rate(parsed.fs)
    run = Run(parsed, paths.derive(parsed), arguments, stages.selected(parsed))
    _require_writable(run)
    stages.run_stages(run)


def _require_writable(run: Run) -> None:
    """Check that the stages of a run can write to their folders.

    Not with ``--reuse true``, where stages may have nothing to write.
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
