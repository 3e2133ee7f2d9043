"""Checks of the levels of ``soft_labels`` before a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_cif_hkd.distill.level_options import Level
from espnet_cif_hkd.distill.level_sources import LevelSource, naming
from espnet_cif_hkd.distill.taps import layers_of
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import read_lines
from espnet_cif_hkd.teachers.store.header import HEADER, dump_hint


def check_depth(levels: Sequence[Level], training: Mapping[str, Any]) -> None:
    """Refuse a level on a layer that the encoder does not have.

    Args:
        levels: The levels.
        training: Options of ESPnet's training command; nothing is checked if they do
            not say ``num_blocks``.

    Raises:
        UserError: The layer is deeper than the encoder.
    """
    blocks = (training.get("encoder_conf") or {}).get("num_blocks")
    for level in levels:
        for layer in layers_of([level.options.tap]):
            if layer < 1 or (isinstance(blocks, int) and layer > blocks):
                known = f" to {blocks}" if isinstance(blocks, int) else ""
                raise UserError(
                    f"{level.place}: tap layer:{layer}, but the layers of the encoder "
                    f"are 1{known} (encoder_conf.num_blocks)"
                )


def check_sources(
    levels: Sequence[Level], training: Mapping[str, Any], token_type: str | None = None
) -> None:
    """Check that all files of the levels are there, and cover the training data.

    Args:
        levels: The levels.
        training: Options of ESPnet's training command; its token list and its text
            files are read.
        token_type: Token type of the recogniser; None infers it.

    Raises:
        UserError: A file is missing, or more than ``max_missing`` of the utterances of
            a text file have no alignment.
    """
    tokens = training.get("token_list") or ()
    if isinstance(tokens, str):  # ESPnet reports a missing file
        tokens = read_lines(tokens) if Path(tokens).is_file() else ()
    for level in levels:
        source = LevelSource(level, tokens, token_type)
        source.open()
        if not level.is_output and level.options.map == "alignment":
            _check_alignments(source, training)
        store = level.store if level.is_soft else None
        if store is not None and not (Path(store) / HEADER).is_file():
            raise UserError(
                f"{level.place}.label_store {store}: there is no {HEADER} in it; "
                f"{dump_hint('labels')}"
            )


def _check_alignments(source: LevelSource, training: Mapping[str, Any]) -> None:
    level = source.level
    texts = [
        str(path)
        for part in ("train", "valid")
        for path, name, _ in training.get(f"{part}_data_path_and_name_and_type") or ()
        if name == "text" and Path(str(path)).is_file()
    ]
    for text in texts:
        names = [line.split(maxsplit=1)[0] for line in read_lines(text) if line.strip()]
        with naming(level):
            source.alignments.require(names, level.options.max_missing, "max_missing")
