"""Pre-train an encoder on speech teachers; transcripts are not needed.

The options are those of ``python3 -m espnet2.bin.asr_train``; docs/pretraining.md has
complete commands.
"""

import sys
from collections.abc import Sequence

from espnet_cif_hkd.cli.command import exit_status


def main(cmd: Sequence[str] | None = None) -> int:
    """Train ``model: pretrain``.

    Args:
        cmd: Arguments; None: those of the command line.

    Returns:
        The exit status: 1 if the input was bad.
    """

    def run() -> None:
        from espnet_cif_hkd.models.pretrain_task import PretrainTask

        PretrainTask.main(cmd=cmd)

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
