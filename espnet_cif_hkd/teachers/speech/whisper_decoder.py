"""The decoder of Whisper as initial parameters of ``decoder: cif_whisper``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError

# Names of a layer's parts: in transformers, and in decoder/cross_layer.py.
_PARTS = {
    "self_attn.q_proj": "self_attn.linear_q",
    "self_attn.k_proj": "self_attn.linear_k",
    "self_attn.v_proj": "self_attn.linear_v",
    "self_attn.out_proj": "self_attn.linear_out",
    "encoder_attn.q_proj": "src_attn.linear_q",
    "encoder_attn.k_proj": "src_attn.linear_k",
    "encoder_attn.v_proj": "src_attn.linear_v",
    "encoder_attn.out_proj": "src_attn.linear_out",
    "self_attn_layer_norm": "norm1",
    "encoder_attn_layer_norm": "norm2",
    "final_layer_norm": "norm3",
    "fc1": "feed_forward.w_1",
    "fc2": "feed_forward.w_2",
}


def initial_parameters(
    decoder: Mapping[str, Tensor],
    units: Sequence[Sequence[int]],
    prompt: Sequence[int],
    end: int,
) -> dict[str, Tensor]:
    """Return the parameters of ``decoder: cif_whisper`` that Whisper's decoder gives.

    Args:
        decoder: State dict of transformers' ``WhisperDecoder``.
        units: Whisper's tokens of each unit between ``<blank>`` and ``<sos/eos>``.
        prompt: Whisper's tokens before a text; the last one replaces ``<sos>``.
        end: Whisper's token after a text.

    Returns:
        Parameters by name, ``decoder.`` first, float32. The embedding of a unit of
        several tokens is their mean, its row of the output layer is that of the first
        one: Whisper's state before a unit knows its first token. ``<blank>`` and units
        without a token, such as ``<unk>``, have the mean of all others.
    """
    decoder = {name: value.float() for name, value in decoder.items()}
    table = decoder["embed_tokens.weight"]

    def rows(vector: Callable[[Tensor], Tensor]) -> Tensor:
        made = [vector(table[list(ids)]) if ids else None for ids in units]
        mean = torch.stack([one for one in made if one is not None]).mean(dim=0)
        middle = (mean if one is None else one for one in made)
        return torch.stack([mean, *middle, table[end]])

    found = {
        "embed.weight": rows(lambda tokens: tokens.mean(dim=0)),
        "output_layer.weight": rows(lambda tokens: tokens[0]),
        "prompt": table[torch.tensor(list(prompt))],
        "position": decoder["embed_positions.weight"],
        "after_norm.weight": decoder["layer_norm.weight"],
        "after_norm.bias": decoder["layer_norm.bias"],
    }
    for name, value in decoder.items():
        if not name.startswith("layers."):
            continue
        _, index, rest = name.split(".", 2)
        part, kind = rest.rsplit(".", 1)
        found[f"layers.{index}.{_PARTS[part]}.{kind}"] = value
    for name in [one for one in found if one.endswith("linear_k.weight")]:
        # Whisper's keys have no bias; one would change no attention weight.
        weight = found[name]
        found[name.removesuffix("weight") + "bias"] = weight.new_zeros(len(weight))
    return {f"decoder.{name}": value for name, value in found.items()}


def decoder_options(config: Any, n_prompt: int) -> dict[str, int]:
    """Return ``decoder_conf`` of ``cif_whisper`` for a Whisper.

    Args:
        config: ``WhisperConfig`` of transformers.
        n_prompt: Tokens of the prompt; the last one replaces ``<sos>``.

    Raises:
        UserError: The decoder has another activation or scales its embeddings.
    """
    if config.activation_function != "gelu" or config.scale_embedding:
        raise UserError(
            "decoder: cif_whisper has GELU and embeddings as they are; this model has "
            f"{config.activation_function}, scale_embedding {config.scale_embedding}"
        )
    return {
        "size": config.d_model,
        "attention_heads": config.decoder_attention_heads,
        "linear_units": config.decoder_ffn_dim,
        "num_blocks": config.decoder_layers,
        "prompt_length": n_prompt - 1,
        "max_length": config.max_target_positions - n_prompt + 1,
    }
