"""Running ESPnet's own ``asr.sh`` with this package's classes and checks.

Called by a recipe's ``asr.sh`` when ``ESPNET_ROOT`` is set. A range of stages that
crosses stage 10 is run in two parts with the checks of :mod:`preflight` between them;
``asr.sh`` itself decides everything by stage number, so two parts equal one.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.plugin.user_modules import add_user_modules
from espnet_cif_hkd.recipe import options, paths
from espnet_cif_hkd.recipe.context import Run

_STAGE = 10


def split_engine_options(
    arguments: Sequence[str],
) -> tuple[list[str], dict[str, str]]:
    """Take the options that ``asr.sh`` does not know out of a command line."""
    kept: list[str] = []
    taken: dict[str, str] = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        name = word[2:].replace("-", "_") if word.startswith("--") else ""
        if name == "python":
            raise UserError(
                "--python would replace the launcher that registers this package: "
                "name the interpreter with PYTHON=… in the environment"
            )
        if name in options.ENGINE_ONLY:
            if not words:
                raise UserError(f"--{name} needs a value")
            taken[name] = words.pop(0)
        else:
            kept.append(word)
            if name and words:
                kept.append(words.pop(0))
    return kept, taken


def engine_run(arguments: Sequence[str]) -> Run | None:
    """The run as the engine sees it, or None if only ``asr.sh`` understands it."""
    from espnet_cif_hkd.recipe import plan as stages

    try:
        parsed = options.parse(arguments)
    except UserError as error:
        log(f"without this package's checks before stage {_STAGE}: {error}")
        return None
    numbers = stages.selected(parsed)
    return Run(parsed, paths.derive(parsed), arguments, numbers, stock=True)


def check(run: Run) -> None:
    """What the engine checks before stage 10.

    Raises:
        UserError: one line that names the thing and how to mend it.
    """
    from espnet_cif_hkd.recipe.plan import Checks

    checks = Checks(run)
    checks.config()
    checks.data()


def _run_asr_sh(command: Sequence[str]) -> None:
    log(" ".join(command))
    result = subprocess.run(command, check=False)
    if result.returncode != 0:
        raise UserError(
            f"asr.sh failed with exit status {result.returncode}: "
            "see its messages above"
        )


def run_stock(asr_sh: Path, python: str, arguments: Sequence[str]) -> None:
    """Run ``asr.sh`` with ``arguments``, checking before stage 10.

    Raises:
        UserError: bad input, or ``asr.sh`` failed.
    """
    kept, taken = split_engine_options(arguments)
    add_user_modules(taken.get("user_module", ""))
    if taken.get("reuse") == "true":
        log("--reuse is this package's engine only: asr.sh runs every stage again")
    command = ["bash", str(asr_sh), "--python", f"{python} -m espnet_cif_hkd", *kept]
    engine_only = [word for name in taken for word in (f"--{name}", taken[name])]
    run = engine_run([*kept, *engine_only])
    if run is None or not {10, 11} & set(run.stages):
        _run_asr_sh(command)
        return
    if run.options.stage < _STAGE:
        _run_asr_sh([*command, "--stop_stage", str(_STAGE - 1)])
        command += ["--stage", str(_STAGE)]
    check(run)
    _run_asr_sh(command)


def main(cmd: Sequence[str] | None = None) -> int:
    """``python3 -m espnet_cif_hkd.recipe.stock``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="espnet_cif_hkd.recipe.stock")
    parser.add_argument("--asr_sh", type=Path, required=True)
    parser.add_argument("--python", default="python3")
    parser.add_argument("arguments", nargs="*")
    args = parser.parse_args(cmd)
    try:
        run_stock(args.asr_sh, args.python, args.arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
