"""A model of a training configuration, made by ESPnet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def build(path: Path, tokens: Sequence[str]) -> Any:
    """Build the model of a configuration with a token list."""
    from espnet2.tasks.asr import ASRTask

    import espnet_cif_hkd

    espnet_cif_hkd.register()
    args = ASRTask.get_parser().parse_args(
        ["--config", str(path), "--output_dir", "unused"]
    )
    args.token_list = list(tokens)
    args.input_size = None
    return ASRTask.build_model(args)
