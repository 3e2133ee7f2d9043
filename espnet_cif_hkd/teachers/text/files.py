"""The files of a PLM, and the names of its weights."""

import re
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.teachers.content import content_hash
from espnet_cif_hkd.teachers.source import WEIGHTS, local_folder, weight_files
from espnet_cif_hkd.teachers.text.plm import (
    TeacherConfig,
    model_class,
    open_config,
)

_TOKENIZER_ALWAYS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_TOKENIZER_SLOW = ("vocab.txt", "vocab.json", "merges.txt", "*.model")
_NUMBER = re.compile(r"\.\d+\.")


def content_files(folder: Path) -> list[Path] | None:
    """Return the files that determine the vectors; None if weights are missing."""
    weights = weight_files(folder)
    if not weights or not all(path.is_file() for path in weights):
        return None
    slow = () if (folder / "tokenizer.json").is_file() else _TOKENIZER_SLOW
    patterns = ("config.json", "tokenizer.json", *_TOKENIZER_ALWAYS, *slow)
    return [*weights, *(p for pattern in patterns for p in folder.glob(pattern))]


def fingerprint(
    name: str, revision: str | None, cache: Path | None = None
) -> str | None:
    """Return a hash of a PLM's files that does not depend on their folder.

    Args:
        name, revision: As in :class:`TeacherConfig`.
        cache: See :func:`content_hash`.

    Returns:
        The hash; None if the files are not on this machine.

    Raises:
        UserError: A file cannot be read.
    """
    folder = local_folder(name, revision)
    files = None if folder is None else content_files(folder)
    return None if files is None else content_hash(files, cache)


def weight_names(folder: Path) -> set[str]:
    """Return the names of the stored weights; reads headers only.

    Raises:
        UserError: a weight file is missing or damaged.
    """
    names: set[str] = set()
    for path in weight_files(folder):
        if path.suffix == ".json":
            continue
        try:
            names.update(_names(path))
        # Readers of damaged files raise errors of many types.
        except Exception as e:
            reason = one_line(e, 200)
            raise UserError(
                f"teacher file {path}: cannot be read ({type(e).__name__}: {reason}); "
                "get a complete copy"
            ) from e
    return names


def _names(path: Path) -> list[str]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as f:
            return list(f.keys())
    import torch

    return list(torch.load(path, map_location="meta", mmap=True, weights_only=True))


def check_weights(config: TeacherConfig) -> None:
    """Check that the configuration and the weights of a teacher are complete.

    Only the names of weights are read. A weight that is missing in all layers is no
    error here, because transformers renames weights of old checkpoints when it loads
    them; opening the teacher reports what is still missing.

    Raises:
        UserError: a file or a weight is missing.
    """
    plm_config = open_config(config)
    folder = local_folder(config.name, config.revision)
    if folder is None:
        return  # a hub name that is not downloaded yet
    if not weight_files(folder):
        raise UserError(
            f"teacher {config.name}: the folder holds no weights "
            f"({WEIGHTS[0]} or {WEIGHTS[2]}); get a complete copy"
        )
    names = {_modern(name) for name in weight_names(folder)}
    missing = sorted(_missing(plm_config, names))
    if missing:
        raise incomplete(config, missing)


def incomplete(config: TeacherConfig, missing: list[str]) -> UserError:
    """Return the error for a teacher with missing weights."""
    return UserError(
        f"teacher {config.name}: its file of weights lacks {len(missing)} of them, "
        f"e.g. {missing[0]}; get a complete copy"
    )


def _modern(name: str) -> str:
    """Rename LayerNorm's gamma and beta of BERT's first checkpoints."""
    return re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", name))


def _missing(plm_config: Any, names: set[str]) -> set[str]:
    """Return weights that are missing in some layers but present in others."""
    import torch

    # Nothing is computed, so this is fast at any size.
    with torch.device("meta"):
        model = model_class(plm_config).from_config(plm_config, trust_remote_code=False)
    ends = {".".join(name.split(".")[n:]) for name in names for n in range(4)}
    kinds = {_NUMBER.sub(".#.", end) for end in ends}
    return {
        name
        for name, _ in model.named_parameters()
        if name not in ends
        and _NUMBER.search(name)
        and _NUMBER.sub(".#.", name) in kinds
        and not name.startswith("decoder.")
    }
