"""Run ESPnet's own ``asr.sh`` with the classes and checks of this package.

A recipe's ``asr.sh`` calls this if ``ESPNET_ROOT`` is set. Stages before and from 10 on
run in two calls of ``asr.sh``, with the checks of :mod:`preflight` in between.
``asr.sh`` depends only on stage numbers, so two calls are equivalent to one.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io import processes
from espnet_cif_hkd.io.file_errors import file_errors_named
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.missing import missing_named
from espnet_cif_hkd.plugin.user_modules import add_user_modules
from espnet_cif_hkd.recipe import dropped, options, paths
from espnet_cif_hkd.recipe.context import Run

_STAGE = 10


def split_engine_options(
    arguments: Sequence[str],
) -> tuple[list[str], dict[str, str]]:
    """Separate the options that ``asr.sh`` does not know from a command line."""
    kept: list[str] = []
    taken: dict[str, str] = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        name = word[2:].replace("-", "_") if word.startswith("--") else ""
        if name == "python":
            raise UserError(
                "--python would replace the launcher that registers this package: "
                "name the interpreter in the environment, as PYTHON=…"
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
    """Return the run for the engine's checks; None if only ``asr.sh`` supports it."""
    from espnet_cif_hkd.recipe import plan as stages

    try:
        parsed = options.parse(arguments)
    except UserError as error:
        log(f"without this package's checks before stage {_STAGE}: {error}")
        return None
    numbers = stages.selected(parsed)
    return Run(parsed, paths.derive(parsed), arguments, numbers, stock=True)


def check(run: Run) -> None:
    """Run the checks of the engine before stage 10.

    Raises:
        UserError: a check failed.
    """
    from espnet_cif_hkd.recipe.plan import Checks

    checks = Checks(run)
    checks.config()
    checks.data()


def _run_asr_sh(command: Sequence[str]) -> None:
    log(" ".join(command))
    status = processes.run(command)
    if status != 0:
        raise UserError(
            f"asr.sh failed with exit status {status}: see its messages above"
        )


def run_stock(asr_sh: Path, python: str, arguments: Sequence[str]) -> None:
    """Run ``asr.sh`` with ``arguments``, with checks before stage 10.

    Raises:
        UserError: an input is wrong, or ``asr.sh`` failed.
    """
    kept, taken = split_engine_options(arguments)
    add_user_modules(taken.get("user_module", ""))
    if taken.get("reuse") == "true":
        log("--reuse needs this package's engine: asr.sh runs every stage again")
    command = ["bash", str(asr_sh), "--python", f"{python} -m espnet_cif_hkd", *kept]
    engine_only = [word for name in taken for word in (f"--{name}", taken[name])]
    run = engine_run([*kept, *engine_only])
    if taken.get("channel") and (run is None or 3 in run.stages):
        raise UserError(
            "--channel needs this package's engine: convert the recordings, or run "
            "stage 3 without ESPNET_ROOT"
        )
    if taken.get("hosts"):
        raise UserError(
            "--hosts needs this package's engine: with ESPNET_ROOT set cmd_backend in "
            "cmd.sh and give --num_nodes, or unset ESPNET_ROOT"
        )
    if taken.get("hf_private") == "true" and (run is None or 15 in run.stages):
        raise UserError(
            "--hf_private needs this package's engine, since asr.sh would create a "
            "public repository: run stage 15 without ESPNET_ROOT"
        )
    if run is not None and run.options.speed_perturb_factors:
        # By default asr.sh expects a file that it does not write (ESPnet issue 5518).
        for name in ("lm_train_text", "bpe_train_text"):
            if not getattr(run.options, name):
                command += [f"--{name}", getattr(run.paths, name)]
    if run is not None and {10, 11} & set(run.stages):
        if run.options.stage < _STAGE:
            _run_asr_sh([*command, "--stop_stage", str(_STAGE - 1)])
            command += ["--stage", str(_STAGE)]
        check(run)
    if run is not None and dropped.listings(run) and run.options.stop_stage > _STAGE:
        if run.options.stage <= _STAGE:
            _run_asr_sh([*command, "--stop_stage", str(_STAGE)])
            command += ["--stage", str(_STAGE + 1)]
        _without_dropped(run)
        command += ["--asr_stats_dir", str(dropped.kept_folder(run))]
    _run_asr_sh(command)


def _without_dropped(run: Run) -> None:
    """Write the shapes for a training by ``asr.sh`` without the dropped utterances."""
    if 11 not in run.stages:
        return
    if run.options.num_splits_asr > 1:
        raise UserError(
            "--drop_too_long true: asr.sh cannot leave utterances out with "
            f"--num_splits_asr {run.options.num_splits_asr}: give --num_splits_asr 1"
        )
    dropped.write_kept(run)


def main(cmd: Sequence[str] | None = None) -> int:
    """Run ``python3 -m espnet_cif_hkd.recipe.stock``; return the exit status."""
    parser = argparse.ArgumentParser(prog="espnet_cif_hkd.recipe.stock")
    parser.add_argument("--asr_sh", type=Path, required=True)
    parser.add_argument("--python", default="python3")
    parser.add_argument("arguments", nargs="*")
    args = parser.parse_args(cmd)
    try:
        with processes.signals_stop(), missing_named(), file_errors_named():
            run_stock(args.asr_sh, args.python, args.arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except processes.Stopped as signal:
        print(f"error: stopped by {signal}", file=sys.stderr, flush=True)
        return 128 + signal.number
    return 0


if __name__ == "__main__":
    sys.exit(main())
