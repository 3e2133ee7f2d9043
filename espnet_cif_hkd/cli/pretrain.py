"""Pre-train an encoder on speech teachers; transcripts are not needed.

The options are those of ``python3 -m espnet2.bin.asr_train``; docs/pretraining.md has
complete commands.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from espnet_cif_hkd.cli.command import exit_status

_STAGE = 11  # of a recipe
_FOLDER = "output_dir (--pretrain_tag of run.sh)"


def main(cmd: Sequence[str] | None = None) -> int:
    """Train ``model: pretrain``.

    Args:
        cmd: Arguments; None: those of the command line.

    Returns:
        The exit status: 1 if the input was bad, or if ``--resume true`` would continue
        a training on other data or with other options.
    """

    def run() -> None:
        from espnet_cif_hkd.models.pretrain_task import PretrainTask
        from espnet_cif_hkd.plugin.registration import register

        register()
        args = PretrainTask.get_parser().parse_args(cmd)
        if args.output_dir and not (
            args.collect_stats or args.dry_run or args.print_config
        ):
            _train(args, PretrainTask.main)
        else:
            PretrainTask.main(args)

    return exit_status(run)


def _train(
    args: argparse.Namespace, train: Callable[[argparse.Namespace], None]
) -> None:
    """Train; record the data, and refuse to resume a training on others."""
    from espnet_cif_hkd.recipe.checks import stamps
    from espnet_cif_hkd.recipe.checks.trained import check_same_model

    folder = Path(args.output_dir)
    tables = [path for path, *_ in args.train_data_path_and_name_and_type]
    # Names and lengths of the utterances, as in a recipe.
    data = stamps.Fingerprint().files(*(args.train_shape_file or tables)).hexdigest()
    if args.resume:
        check_same_model(folder, args, _FOLDER)
        stamps.require_same_data(folder, _STAGE, data, _FOLDER)
    stamps.begin(folder, _STAGE, data)
    train(args)
    stamps.finish(folder, _STAGE, "", data)


if __name__ == "__main__":
    sys.exit(main())
