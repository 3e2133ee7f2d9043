"""Converts Whisper weights of CTranslate2 to a model folder of transformers.

CTranslate2 joins the projections of queries, keys and values in one matrix; the other
weights only have other names. Values do not change.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.speech.ctranslate2 import CT2Model

_SPECIFICATION = "WhisperSpec"
_GELU = 3
# Entries that are no weights.
_SETTINGS = frozenset(
    f"{side}/{name}"
    for side in ("encoder", "decoder")
    for name in (
        *("activation", "alibi", "alignment_heads", "alignment_layer", "num_heads"),
        *("pre_norm", "scale_embeddings", "start_from_zero_embedding"),
    )
)
_MULTILINGUAL = 51865  # smallest vocabulary of a multilingual Whisper


class _Weights:
    """Variables of a model, each of which is used once."""

    def __init__(self, model: CT2Model, source: str):
        self._left = {
            name: array
            for name, array in model.variables.items()
            if name not in _SETTINGS
        }
        self.source = source

    def take(self, name: str) -> np.ndarray:
        try:
            array = self._left.pop(name)
        except KeyError:
            raise UserError(
                f"{self.source}: has no variable {name}; it is no Whisper model that "
                "this command knows"
            ) from None
        if array.dtype.kind != "f":
            raise UserError(
                f"{self.source}: {name} is quantised to {array.dtype}; get the model "
                "in float16 or float32"
            )
        return array

    def count_layers(self, side: str) -> int:
        numbers = {
            int(part[1].removeprefix("layer_"))
            for part in (name.split("/") for name in self._left)
            if part[0] == side and part[1].startswith("layer_") and len(part) > 2
            if part[1].removeprefix("layer_").isdigit()
        }
        return len(numbers)

    def shape(self, name: str) -> tuple[int, ...]:
        found = self._left.get(name)
        return () if found is None else found.shape

    def rest(self) -> list[str]:
        return sorted(self._left)


def convert_weights(
    model: CT2Model, source: str, *, encoder_only: bool = False
) -> tuple[Any, dict[str, np.ndarray]]:
    """Convert a model.

    Args:
        model: A model of CTranslate2 with the specification of Whisper.
        source: Name of its file, for messages.
        encoder_only: Whether to leave out the decoder.

    Returns:
        The ``WhisperConfig``, and arrays by the names of
        ``WhisperForConditionalGeneration``.

    Raises:
        UserError: The model is no Whisper, is quantised, or has unknown variables.
    """
    if model.specification != _SPECIFICATION:
        raise UserError(
            f"{source}: is a {model.specification!r}, not a {_SPECIFICATION!r}; only "
            "Whisper models can be converted"
        )
    weights = _Weights(model, source)
    config = _config(model, weights)
    arrays = dict(_encoder(weights, config.d_model, config.encoder_layers))
    decoder = dict(_decoder(weights, config.d_model, config.decoder_layers))
    if weights.rest():
        raise UserError(
            f"{source}: has the unknown variable {weights.rest()[0]}; it is no Whisper "
            "model that this command knows"
        )
    return config, arrays if encoder_only else {**arrays, **decoder}


def _config(model: CT2Model, weights: _Weights) -> Any:
    from transformers import WhisperConfig

    def setting(name: str, default: int) -> int:
        value = model.variables.get(name)
        return default if value is None else int(value)

    vocabulary, width = (*weights.shape("decoder/embeddings/weight"), 0, 0)[:2]
    positions = weights.shape("encoder/position_encodings/encodings")
    texts = weights.shape("decoder/position_encodings/encodings")
    convolution = weights.shape("encoder/conv1/weight")
    feed_forward = weights.shape("encoder/layer_0/ffn/linear_0/weight")
    if not (width and positions and texts and len(convolution) == 3 and feed_forward):
        raise UserError(
            f"{weights.source}: lacks embeddings, positions or layers of Whisper; name "
            "all its parts in order, or get a new copy"
        )
    if setting("decoder/activation", _GELU) != _GELU:
        raise UserError(
            f"{weights.source}: its activation is not GELU; it is no Whisper model "
            "that this command knows"
        )
    # Whisper's English vocabulary has one token less; all special tokens move.
    first = 50257 if vocabulary >= _MULTILINGUAL else 50256
    return WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=convolution[1],
        d_model=width,
        encoder_layers=weights.count_layers("encoder"),
        decoder_layers=weights.count_layers("decoder"),
        encoder_attention_heads=setting("encoder/num_heads", width // 64),
        decoder_attention_heads=setting("decoder/num_heads", width // 64),
        encoder_ffn_dim=feed_forward[0],
        decoder_ffn_dim=feed_forward[0],
        max_source_positions=positions[0],
        max_target_positions=texts[0],
        eos_token_id=first,
        bos_token_id=first,
        pad_token_id=first,
        decoder_start_token_id=first + 1,
        begin_suppress_tokens=[220, first],
        architectures=["WhisperForConditionalGeneration"],
    )


def _encoder(
    weights: _Weights, width: int, layers: int
) -> Iterator[tuple[str, np.ndarray]]:
    to = "model.encoder"
    for name in ("conv1", "conv2"):
        yield from _linear(weights, f"encoder/{name}", f"{to}.{name}")
    yield (
        f"{to}.embed_positions.weight",
        weights.take("encoder/position_encodings/encodings"),
    )
    yield from _norm(weights, "encoder/layer_norm", f"{to}.layer_norm")
    for n in range(layers):
        yield from _layer(weights, f"encoder/layer_{n}", f"{to}.layers.{n}", width)


def _decoder(
    weights: _Weights, width: int, layers: int
) -> Iterator[tuple[str, np.ndarray]]:
    to = "model.decoder"
    # The output layer is an alias of the embedding.
    yield f"{to}.embed_tokens.weight", weights.take("decoder/embeddings/weight")
    weights.take("decoder/projection/weight")
    yield (
        f"{to}.embed_positions.weight",
        weights.take("decoder/position_encodings/encodings"),
    )
    yield from _norm(weights, "decoder/layer_norm", f"{to}.layer_norm")
    for n in range(layers):
        source, target = f"decoder/layer_{n}", f"{to}.layers.{n}"
        yield from _layer(weights, source, target, width)
        cross, attention = f"{source}/attention", f"{target}.encoder_attn"
        yield from _linear(weights, f"{cross}/linear_0", f"{attention}.q_proj")
        yield from _joined(weights, f"{cross}/linear_1", attention, "kv", width)
        yield from _linear(weights, f"{cross}/linear_2", f"{attention}.out_proj")
        yield from _norm(weights, f"{cross}/layer_norm", f"{attention}_layer_norm")


def _layer(
    weights: _Weights, source: str, target: str, width: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Self-attention and feed-forward part of a layer."""
    inner, attention = f"{source}/self_attention", f"{target}.self_attn"
    yield from _joined(weights, f"{inner}/linear_0", attention, "qkv", width)
    yield from _linear(weights, f"{inner}/linear_1", f"{attention}.out_proj")
    yield from _norm(weights, f"{inner}/layer_norm", f"{attention}_layer_norm")
    yield from _linear(weights, f"{source}/ffn/linear_0", f"{target}.fc1")
    yield from _linear(weights, f"{source}/ffn/linear_1", f"{target}.fc2")
    yield from _norm(weights, f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")


def _linear(
    weights: _Weights, source: str, target: str
) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{target}.weight", weights.take(f"{source}/weight")
    yield f"{target}.bias", weights.take(f"{source}/bias")


def _norm(
    weights: _Weights, source: str, target: str
) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{target}.weight", weights.take(f"{source}/gamma")
    yield f"{target}.bias", weights.take(f"{source}/beta")


def _joined(
    weights: _Weights, source: str, target: str, letters: str, width: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Split a matrix with the projections of queries, keys and values."""
    weight = weights.take(f"{source}/weight")
    bias = weights.take(f"{source}/bias")
    if weight.shape != (len(letters) * width, width) or len(bias) != len(weight):
        raise UserError(
            f"{weights.source}: {source} has the shape {weight.shape}; it is no "
            "Whisper model that this command knows"
        )
    for n, letter in enumerate(letters):
        rows = slice(n * width, (n + 1) * width)
        yield f"{target}.{letter}_proj.weight", weight[rows]
        if letter != "k":
            yield f"{target}.{letter}_proj.bias", bias[rows]
        elif bias[rows].any():
            raise UserError(
                f"{weights.source}: {source} adds a bias to the keys, which Whisper "
                "does not have"
            )


def write_folder(folder: Path, config: Any, arrays: dict[str, np.ndarray]) -> None:
    """Write ``config.json``, ``preprocessor_config.json`` and ``model.safetensors``.

    Args:
        folder: An existing folder.
        config: A ``WhisperConfig``.
        arrays: Weights by name.

    Raises:
        OSError: A file cannot be written.
    """
    from safetensors.numpy import save_file
    from transformers import WhisperFeatureExtractor

    config.dtype = str(next(iter(arrays.values())).dtype)
    config.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)
    solid = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(solid, folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors makes files that only their owner can read.
    mode = (folder / "config.json").stat().st_mode
    (folder / "model.safetensors").chmod(mode)
