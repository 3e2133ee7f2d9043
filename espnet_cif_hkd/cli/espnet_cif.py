"""The program ``espnet-cif``: one command for each module of this package.

A command is a module with ``main``; its name has dashes, its summary is the first line
of the module. Only the chosen module is imported.
"""

import difflib
import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import espnet_cif_hkd
from espnet_cif_hkd.cli.command import PROGRAM, exit_status

# What users of a trained model need comes first.
_FIRST = (
    *("transcribe", "align", "check", "calibrate", "fit-length", "rescore"),
    *("export", "serve"),
)


def commands() -> dict[str, str]:
    """Return the summary of each command, without importing them."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        source = path.read_text(encoding="utf-8")
        summary = re.match(r'"""(.+?)\.?(?:: ``.*)?(?:"""|\n)', source)
        if (
            summary
            and path != Path(__file__)
            and re.search(r"^def main\(", source, re.M)
        ):
            found[path.stem.replace("_", "-")] = summary[1]
    first = {name: found.pop(name) for name in _FIRST if name in found}
    return {**first, **found}


def usage() -> str:
    """Return the help of the program."""
    known = commands()
    lines = [
        f"usage: {PROGRAM} COMMAND [ARGUMENT ...]",
        "",
        "CIF speech recognition for ESPnet.",
        "",
        "commands for trained models:",
    ]
    width = max(map(len, known)) + 2
    rest = [name for name in known if name not in _FIRST]
    for name, summary in known.items():
        if rest and name == rest[0]:
            lines += ["", "commands for training:"]
        lines.append(f"  {name:{width}}{summary}")
    lines += ["", f"{PROGRAM} COMMAND --help   options of a command"]
    lines += [f"{PROGRAM} --version        version of this package"]
    return "\n".join(lines) + "\n"


def main(cmd: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code.

    Args:
        cmd: Name of the command and its arguments; None: those of the command line.
    """
    arguments = list(sys.argv[1:] if cmd is None else cmd)
    if not arguments:
        print(usage(), end="", file=sys.stderr)
        return 2
    name, rest = arguments[0], arguments[1:]
    if name in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    if name == "--version":
        print(f"{PROGRAM} {espnet_cif_hkd.__version__}")
        return 0
    known = commands()
    name = name.replace("_", "-")
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"see {PROGRAM} --help"
        print(f"error: no command {arguments[0]!r}: {hint}", file=sys.stderr)
        return 2
    module = f"espnet_cif_hkd.cli.{name.replace('-', '_')}"
    return exit_status(lambda: importlib.import_module(module).main(rest))


if __name__ == "__main__":
    sys.exit(main())
