"""The command line of the engine."""

import sys
from collections.abc import Sequence

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.user_modules import add_user_modules
from espnet_cif_hkd.recipe import options, paths
from espnet_cif_hkd.recipe.context import Run


def main(cmd: Sequence[str] | None = None) -> int:
    """Run ``python3 -m espnet_cif_hkd.recipe``; returns the exit status.

    Bad input is told in one line that begins with ``error:``, with status 1.
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
        run_recipe(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr, flush=True)
        return 130
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
    stages.run_stages(run)
