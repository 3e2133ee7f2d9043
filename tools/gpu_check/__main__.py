"""The command line of ``tools/gpu_check.sh``."""

import argparse
import sys
from pathlib import Path

from gpu_check import bundle, run

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run a command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="tools/gpu_check.sh", description="Checks this package on a GPU machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    bundle.add_options(commands.add_parser("bundle", help="pack what a run needs"))
    run.add_options(commands.add_parser("run", help="install, test and measure"))
    args = parser.parse_args()
    try:
        if args.command == "bundle":
            return bundle.main(args, ROOT)
        return run.main(args, ROOT)
    except bundle.BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
