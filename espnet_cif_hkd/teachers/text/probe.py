"""Probes of a PLM: its longest input, and whether padding changes its vectors."""

from typing import Any

import torch

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.teachers.text.plm import TeacherConfig, layer_index

_NO_LIMIT = 1 << 20
_SHORT = 5  # tokens of the sentence that is padded
_LONG = 1024  # maximum for the long sentence of the batch
# Relative difference of a vector. Rounding of float32 causes about 1e-6.
_TOLERANCE = 1e-3


def max_length(tokenizer: Any, model: Any) -> int:
    """Return the longest input of the PLM in tokens, with opening and closing ones."""
    limit = int(min(tokenizer.model_max_length, _NO_LIMIT))
    # XLNet: -1 means no limit.
    positions = getattr(model.config, "max_position_embeddings", None) or 0
    if positions > 0:
        limit = min(limit, positions)
    for name, module in model.named_modules():
        # RoBERTa and related models number positions from the padding's id + 1, so the
        # first positions are not used.
        shift = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and shift is not None:
            limit = min(limit, len(module.weight) - shift - 1)
    return limit


def hidden_states(
    model: Any, layer: int, ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Run the PLM; return the output of a layer, (B, P, C).

    Args:
        model: a PLM.
        layer: 0 is the embedding, n is layer n.
        ids: (B, P) token ids, int64.
        mask: (B, P), 1 for tokens, 0 for padding.
    """
    last = layer == model.config.num_hidden_layers
    output = model(input_ids=ids, attention_mask=mask, output_hidden_states=not last)
    return output.last_hidden_state if last else output.hidden_states[layer]


def probe(config: TeacherConfig, tokenizer: Any, model: Any) -> None:
    """Check that a PLM works at its longest input and that padding has no effect.

    One batch has a short, padded sentence and a sentence of the longest input, up to
    1,024 tokens; another batch has only the short sentence.

    Args:
        config: the PLM and its layer.
        tokenizer: tokenizer of the PLM.
        model: the PLM, in float32, on the CPU.

    Raises:
        UserError: the PLM fails, or its vectors depend on padding.
    """
    limit = max_length(tokenizer, model)
    kind = type(model).__name__
    if limit < _SHORT:
        raise UserError(
            f"teacher {config.name} ({kind}): takes {limit} tokens at once, too few "
            "for a sentence; correct model_max_length in its tokenizer_config.json, or "
            "choose another teacher"
        )
    layer = layer_index(config, model.config.num_hidden_layers)
    size = min(limit, _LONG)
    pad = tokenizer.pad_token_id or 0
    usual = _usual_ids(tokenizer, pad)
    ids = torch.tensor([usual[n % len(usual)] for n in range(size)]).repeat(2, 1)
    mask = torch.ones_like(ids)
    ids[0, _SHORT:], mask[0, _SHORT:] = pad, 0
    try:
        with torch.inference_mode():
            alone = hidden_states(model, layer, ids[:1, :_SHORT], mask[:1, :_SHORT])
            padded = hidden_states(model, layer, ids, mask)
    # Models raise errors of many types.
    except Exception as e:
        reason = one_line(e, 200)
        raise UserError(
            f"teacher {config.name} ({kind}): it fails on a sentence of {size} tokens, "
            f"which it should take ({type(e).__name__}: {reason}); set a smaller "
            "model_max_length in its tokenizer_config.json, or choose another teacher"
        ) from e
    if alone.shape != (1, _SHORT, config.dim) or padded.shape != (2, size, config.dim):
        raise UserError(
            f"teacher {config.name} ({kind}): gives vectors of the shape "
            f"{tuple(alone.shape)} for {_SHORT} tokens; choose a text encoder"
        )
    lengths = alone[0].norm(dim=1)
    change = (padded[0, :_SHORT] - alone[0]).norm(dim=1) / lengths.clamp(min=1e-12)
    worst = float(change.max())
    if not worst <= _TOLERANCE:
        raise UserError(
            f"teacher {config.name} ({kind}): its vectors depend on padding (one of "
            f"them changes by {worst:.1%} when the sentence is padded); choose another "
            "teacher"
        )


def _usual_ids(tokenizer: Any, pad: int) -> list[int]:
    """Return up to 100 ids of tokens that are not special."""
    special = {*tokenizer.all_special_ids, pad}
    return [n for n in range(min(len(tokenizer), 1000)) if n not in special][:100]
