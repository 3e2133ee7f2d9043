"""Tiny random speech models of each kind, and a writer of CTranslate2 files."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 16
LAYERS = 3
POSITIONS = 50  # Whisper's window here: 1 s instead of 30 s
MELS = 20
KINDS = ("whisper", "wav2vec2", "hubert", "wavlm", "data2vec-audio", "wav2vec2-bert")

_COMMON = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
_WAVE = {
    **_COMMON,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


def tiny_config(kind: str, **changes: Any) -> Any:
    """The configuration of a tiny model of a kind; the geometry is the real one."""
    import transformers

    if kind == "whisper":
        options: dict[str, Any] = {
            "vocab_size": 40,
            "num_mel_bins": MELS,
            "d_model": WIDTH,
            "encoder_layers": LAYERS,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "max_source_positions": POSITIONS,
            "max_target_positions": 12,
            **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 2),
            "decoder_start_token_id": 3,
            "begin_suppress_tokens": None,
        }
    elif kind == "data2vec-audio":
        options = {**_WAVE, "conv_pos_kernel_size": 5}
    elif kind == "wav2vec2-bert":
        options = {**_COMMON, "feature_projection_input_dim": 160}
    else:
        options = dict(_WAVE)
    name = transformers.CONFIG_MAPPING[kind]
    return name(**{**options, **changes})


def tiny_extractor(kind: str) -> Any:
    """The feature extractor of a tiny model."""
    import transformers

    if kind == "whisper":
        return transformers.WhisperFeatureExtractor(feature_size=MELS)
    if kind == "wav2vec2-bert":
        return transformers.SeamlessM4TFeatureExtractor()
    return transformers.Wav2Vec2FeatureExtractor(do_normalize=True)


def tiny_model(kind: str, seed: int = 0, **changes: Any) -> Any:
    """A random model with weights that make its frames differ."""
    import torch
    import transformers

    config = tiny_config(kind, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "whisper":
            model = transformers.WhisperForConditionalGeneration(config)
        else:
            model = transformers.AutoModel.from_config(config)
        for name, parameter in model.named_parameters():
            if "norm" not in name and "weight_g" not in name:
                torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def build_tiny_speech(folder: Path, kind: str, seed: int = 0, **changes: Any) -> str:
    """Write a tiny model with its feature extractor; return the folder's name."""
    tiny_model(kind, seed, **changes).save_pretrained(folder)
    tiny_extractor(kind).save_pretrained(folder)
    return str(folder)


def speech(seconds: float, seed: int = 0, rate: int = 16000) -> np.ndarray:
    """Noise whose loudness changes, (S,) float32."""
    n = round(seconds * rate)
    noise = np.random.default_rng(seed).normal(0, 0.1, n)
    loudness = 1 + np.sin(np.arange(n) / rate * 2 * np.pi * 3)
    return (noise * loudness).astype(np.float32)


def ct2_bytes(
    variables: dict[str, np.ndarray],
    aliases: dict[str, str],
    specification: str = "WhisperSpec",
    version: int = 6,
) -> bytes:
    """The content of a ``model.bin`` of CTranslate2."""
    codes = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}

    def text(value: str) -> bytes:
        data = value.encode() + b"\0"
        return struct.pack("<H", len(data)) + data

    parts = [struct.pack("<I", version), text(specification)]
    parts.append(struct.pack("<II", 3, len(variables)))
    for name, array in variables.items():
        data = np.ascontiguousarray(array).tobytes()
        parts += [text(name), struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)]
        parts += [struct.pack("<BI", codes[array.dtype.name], len(data)), data]
    parts.append(struct.pack("<I", len(aliases)))
    parts += [text(name) + text(target) for name, target in aliases.items()]
    return b"".join(parts)


def ct2_whisper(model: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Variables and aliases of CTranslate2 for a Whisper of transformers, float16."""
    import torch

    state = {
        name: tensor.detach().to(torch.float16).numpy()
        for name, tensor in model.state_dict().items()
    }
    heads = model.config.encoder_attention_heads
    found: dict[str, np.ndarray] = {}

    def linear(target: str, *sources: str) -> None:
        weights = [state[f"model.{source}.weight"] for source in sources]
        biases = [
            state.get(f"model.{source}.bias", np.zeros(len(weight), np.float16))
            for source, weight in zip(sources, weights, strict=True)
        ]
        found[f"{target}/weight"] = np.concatenate(weights)
        found[f"{target}/bias"] = np.concatenate(biases)

    def norm(target: str, source: str) -> None:
        found[f"{target}/gamma"] = state[f"model.{source}.weight"]
        found[f"{target}/beta"] = state[f"model.{source}.bias"]

    for side, layers in (
        ("encoder", model.config.encoder_layers),
        ("decoder", model.config.decoder_layers),
    ):
        found[f"{side}/num_heads"] = np.array(heads, np.int16)
        found[f"{side}/position_encodings/encodings"] = state[
            f"model.{side}.embed_positions.weight"
        ]
        norm(f"{side}/layer_norm", f"{side}.layer_norm")
        for n in range(layers):
            to, source = f"{side}/layer_{n}", f"{side}.layers.{n}"
            own = f"{source}.self_attn"
            linear(f"{to}/self_attention/linear_0", *(f"{own}.{x}_proj" for x in "qkv"))
            linear(f"{to}/self_attention/linear_1", f"{own}.out_proj")
            norm(f"{to}/self_attention/layer_norm", f"{own}_layer_norm")
            linear(f"{to}/ffn/linear_0", f"{source}.fc1")
            linear(f"{to}/ffn/linear_1", f"{source}.fc2")
            norm(f"{to}/ffn/layer_norm", f"{source}.final_layer_norm")
            if side == "decoder":
                cross = f"{source}.encoder_attn"
                linear(f"{to}/attention/linear_0", f"{cross}.q_proj")
                linear(f"{to}/attention/linear_1", f"{cross}.k_proj", f"{cross}.v_proj")
                linear(f"{to}/attention/linear_2", f"{cross}.out_proj")
                norm(f"{to}/attention/layer_norm", f"{cross}_layer_norm")
    for name in ("conv1", "conv2"):
        linear(f"encoder/{name}", f"encoder.{name}")
    found["decoder/embeddings/weight"] = state["model.decoder.embed_tokens.weight"]
    found["decoder/activation"] = np.array(3, np.int8)
    found["decoder/scale_embeddings"] = np.array(0, np.int8)
    return found, {"decoder/projection/weight": "decoder/embeddings/weight"}
