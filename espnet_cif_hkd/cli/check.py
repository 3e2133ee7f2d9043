"""Check this installation and a trained model; name each fault in one line.

The exit code is 1 if something is wrong; warnings do not count.

  espnet-cif check
  espnet-cif check --model exp/asr_x --audio talk.wav
"""

import argparse
import sys
from collections.abc import Sequence

from espnet_cif_hkd.cli.command import command_parser
from espnet_cif_hkd.cli.result_options import guarded, quiet_libraries
from espnet_cif_hkd.errors import UserError


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    parser.add_argument(
        "--model", "-m", help="folder of a training, packed model (zip), or tag"
    )
    parser.add_argument(
        "--audio", help="speech to recognise (default: synthetic sound)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda[:N]")
    parser.add_argument("--verbose", action="store_true", help="show ESPnet's log")
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the findings; return 1 if one of them is a fault.

    Raises:
        UserError: ``--audio`` without ``--model``.
    """
    from espnet_cif_hkd.inference.doctor import diagnose
    from espnet_cif_hkd.inference.findings import FAIL

    if args.audio is not None and args.model is None:
        raise UserError("--audio needs --model: it is recognised with the model")
    out, failed = sys.stdout, False
    with quiet_libraries(args.verbose, args.model):
        for one in diagnose(args.model, args.audio, args.device):
            out.write(f"{one.level:5} {one.subject:14} {one.message}\n")
            out.flush()
            failed |= one.level == FAIL
    return int(failed)


def main(cmd: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return guarded(run, get_parser().parse_args(cmd))


if __name__ == "__main__":
    sys.exit(main())
