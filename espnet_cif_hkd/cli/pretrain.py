"""Pre-train an encoder on speech teachers; transcripts are not needed.

The options are those of ``python3 -m espnet2.bin.asr_train``; docs/pretraining.md has
complete commands.
"""

import sys
from collections.abc import Sequence

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.missing import missing_named


def main(cmd: Sequence[str] | None = None) -> int:
    """Train ``model: pretrain``.

    Args:
        cmd: Arguments; None: those of the command line.

    Returns:
        The exit status: 1 if the input was bad.
    """
    try:
        with missing_named():
            from espnet_cif_hkd.models.pretrain_task import PretrainTask

            PretrainTask.main(cmd=cmd)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
