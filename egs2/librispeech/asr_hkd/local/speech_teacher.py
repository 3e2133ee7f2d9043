"""Convert a speech model of the Hugging Face hub to a folder with safetensors.

The hub has some models, such as microsoft/wavlm-large, only in torch's format, which
speech teachers do not read. A folder that is there is left unchanged.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.io.log import log

_FILE = "model.safetensors"
# A weight that only the model's own training reads.
_UNUSED = ("masked_spec_embed",)


def convert(name: str, revision: str | None, folder: Path) -> None:
    """Write the encoder and its feature extractor to ``folder``.

    Args:
        name: a hub name, or a folder with weights in torch's format.
        revision: the commit of a hub name.
        folder: the result; an interrupted conversion leaves nothing there.

    Raises:
        UserError: the model cannot be read or is incomplete.
    """
    if (folder / _FILE).is_file():
        return
    from transformers import AutoFeatureExtractor, AutoModel

    log(f"getting {name} (once)")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    safe = {"revision": revision, "trust_remote_code": False}
    try:
        model, report = AutoModel.from_pretrained(
            name, weights_only=True, output_loading_info=True, **safe
        )
        extractor = AutoFeatureExtractor.from_pretrained(name, **safe)
    # Readers of damaged files raise errors of many types.
    except Exception as error:
        reason = one_line(error, 200)
        raise UserError(
            f"{name} cannot be read ({type(error).__name__}: {reason}); check the name "
            f"and the network, or put a folder with {_FILE} at {folder}"
        ) from error
    missing = sorted(k for k in report["missing_keys"] if not k.endswith(_UNUSED))
    if missing:
        raise UserError(f"{name} lacks {len(missing)} weights, e.g. {missing[0]}")
    try:
        model.save_pretrained(part)
        extractor.save_pretrained(part)
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror or error}"
        ) from error
    log(f"{folder}: {name}, {model.config.model_type}")


def main(cmd: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="speech_teacher.py", description=__doc__)
    parser.add_argument("name", help="a hub name or a folder")
    parser.add_argument("revision", help="commit of the hub name")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args(cmd)
    try:
        convert(args.name, args.revision, args.folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
