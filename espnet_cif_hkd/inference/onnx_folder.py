"""The folder of an exported model: metadata, tokens and graphs.

This module needs neither torch nor ESPnet.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from espnet_cif_hkd.errors import UserError, one_line

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
METADATA, TOKENS, FEATURES = "metadata.json", "tokens.txt", "features.npz"
FORMAT = 1
# What a decoder with frame_window reads for each token.
NEAR = ("keys", "values", "allowed")
# Pieces of sentencepiece for a byte, and what it writes for an unknown piece.
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_UNKNOWN = " \u2047 "


class Graphs:
    """The graphs of an exported model.

    Args:
        folder: Of the model.
        names: Of the graphs.
        int8: Whether those with weights of 8 bits.
        threads: Threads of onnxruntime; 0: it decides.

    Raises:
        UserError: A graph is missing or cannot be loaded.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], int8: bool, threads: int
    ) -> None:
        self._sessions = {
            name: _session(folder, name, int8, threads) for name in sorted(names)
        }

    def run(self, name: str, given: Mapping[str, Array]) -> Arrays:
        """Run a graph; inputs and outputs by name."""
        graph = self._sessions[name]
        outputs = [one.name for one in graph.get_outputs()]
        return dict(zip(outputs, graph.run(None, dict(given)), strict=True))

    def empty(self, name: str, prefix: str) -> Arrays:
        """Zeros for the inputs of a graph whose names begin with ``prefix``.

        A dimension of any size is 0.
        """
        return {
            one.name: np.zeros(
                [n if isinstance(n, int) else 0 for n in one.shape], np.float32
            )
            for one in self._sessions[name].get_inputs()
            if one.name.startswith(prefix)
        }


def decoder_of(token_type: str) -> Callable[[Sequence[str]], str]:
    """Return the function that joins symbols to a text.

    Args:
        token_type: ESPnet's: ``char``, ``bpe``, ``word``, ``phn`` or
            ``hugging_face``, whose pieces may be WordPieces.

    Example:
        >>> decoder_of("char")(["a", "<space>", "b"]), decoder_of("bpe")(["▁a", "b"])
        ('a b', 'ab')
    """
    if token_type == "char":
        return lambda symbols: "".join(
            " " if one == "<space>" else one for one in symbols
        )
    if token_type == "bpe":
        return _text_of_pieces
    if token_type == "phn":
        return "".join
    if token_type == "hugging_face":
        return lambda symbols: " ".join(symbols).replace(" ##", "")
    return " ".join


def _text_of_pieces(pieces: Sequence[str]) -> str:
    """Join pieces as sentencepiece's ``DecodePieces``."""
    text = ""
    for is_byte, run in groupby(pieces, lambda one: bool(_BYTE.fullmatch(one))):
        if is_byte:
            data = bytes(int(one[3:5], 16) for one in run)
            # Each byte that is no UTF-8 is one replacement character.
            found = data.decode("utf-8", "surrogateescape")
            text += re.sub("[\udc80-\udcff]", "\ufffd", found)
            continue
        for one in run:
            # The word marks before the text are no spaces.
            piece = one if text else one.removeprefix("▁")
            text += _UNKNOWN if one == "<unk>" else piece.replace("▁", " ")
    return text


def is_exported(model: str | Path) -> bool:
    """Whether ``model`` is the folder of an exported model."""
    return (Path(model) / METADATA).is_file()


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read the metadata.

    Raises:
        UserError: The folder holds no exported model, or one of another format.
    """
    path = folder / METADATA
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is no exported model ({METADATA}: {type(error).__name__}): give "
            "the folder that python3 -m espnet_cif_hkd.cli.export made"
        ) from error
    if known != FORMAT:
        raise UserError(
            f"{path} has format {known}, this version reads {FORMAT}: export the model "
            "again, or install the version that made it"
        )
    return dict(found)


def read_tokens(path: Path) -> list[str]:
    """Read the token list.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: export again") from error
    return [line.rpartition(" ")[0] for line in lines if line]


def _session(folder: Path, name: str, int8: bool, threads: int) -> Any:
    path = folder / f"{name}{'.int8' if int8 else ''}.onnx"
    if not path.is_file():
        raise UserError(
            f"{path} is missing: export again{' with --int8' if int8 else ''}"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"exported models need onnxruntime: pip install onnxruntime ({error})"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        reason = one_line(error, 200)
        raise UserError(f"{path} cannot be loaded ({reason}): export again") from error


def checked(samples: Any, name: str) -> Array:
    """Samples as float32 in [-1, 1], ``(S,)``.

    Raises:
        UserError: The type, shape or a value is wrong.
    """
    found = np.asarray(samples)
    if found.dtype == np.int16:
        found = found / 32768.0
    elif not np.issubdtype(found.dtype, np.floating):
        raise UserError(
            f"{name} has dtype {found.dtype}: give float samples in [-1, 1], or int16"
        )
    if found.ndim == 2 and 1 in found.shape:
        found = found.reshape(-1)
    if found.ndim != 1:
        raise UserError(
            f"{name} has shape {found.shape}: give one channel as (samples,)"
        )
    if not np.isfinite(found).all():
        raise UserError(f"{name} holds NaN or infinity; repair the audio")
    return found.astype(np.float32)
