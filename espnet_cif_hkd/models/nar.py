"""A one-pass decoder beside the autoregressive one, on the same encoder and firing."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
from espnet_cif_hkd.decoder.output import CIFDecoderOutput
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.token import TokenScores, score_tokens

# What the other decoder decides, because both share the firing.
_SHARED = ("predictor_conf", "eos_slack")


@dataclass(frozen=True)
class OnePassOptions:
    """Options of the second decoder in ``model_conf``.

    Attributes:
        weight: ``nar_weight``.
        distill: ``nar_distill_weight``.
    """

    weight: float
    distill: float


def build_one_pass(
    conf: Mapping[str, Any] | None,
    weight: float,
    distill: float,
    vocab_size: int,
    decoder: CIFDecoder,
) -> tuple[CIFNARDecoder | None, OnePassOptions]:
    """Build the decoder of ``nar_conf``; None without one.

    Raises:
        UserError: An option is unknown or wrong, or ``decoder`` is a one-pass decoder.
    """
    for name, value in (("nar_weight", weight), ("nar_distill_weight", distill)):
        if type(value) not in (int, float) or not 0 <= value < float("inf"):
            raise UserError(
                f"model_conf: {name} is {value!r}; it must be a number >= 0"
            )
    options = OnePassOptions(float(weight), float(distill))
    if conf is None:
        return None, options
    if not isinstance(conf, Mapping):
        raise UserError(
            f"model_conf: nar_conf is {conf!r}; it must hold 'option: value'"
        )
    if isinstance(decoder, CIFNARDecoder):
        raise UserError(
            "model_conf: nar_conf adds a one-pass decoder beside 'decoder: cif', but "
            "the decoder is cif_nar already; remove nar_conf, or set 'decoder: cif'"
        )
    if not options.weight + options.distill:
        raise UserError(
            "model_conf: nar_weight and nar_distill_weight are 0, so nothing would "
            "train the decoder of nar_conf; set one of them, or remove nar_conf"
        )
    if shared := [name for name in _SHARED if name in conf]:
        raise UserError(
            f"model_conf: nar_conf.{shared[0]} has no effect, because both decoders "
            f"share the firing; set decoder_conf.{shared[0]}"
        )
    size = decoder.fired_size
    known = [*inspect.signature(CIFNARDecoder).parameters][2:]
    if unknown := sorted(set(conf) - set(known)):
        raise UserError(
            f"model_conf: nar_conf has unknown keys {unknown}; known are "
            f"{', '.join(name for name in known if name not in _SHARED)}"
        )
    built = CIFNARDecoder(vocab_size, size, eos_slack=decoder.eos_slack, **conf)
    built.sos, built.eos = decoder.sos, decoder.eos
    return built.without_firing(), options


def score_output(
    output: CIFDecoderOutput, targets: Tensor, ignore_id: int, smoothing: float
) -> tuple[TokenScores, Tensor]:
    """As :func:`score_tokens`, without the tokens that training has shown.

    Returns:
        The scores, and the number of scored tokens, at least 1.
    """
    if output.scored is not None:
        targets = targets.masked_fill(~output.scored, ignore_id)
    scores = score_tokens(output.logits, targets, ignore_id, smoothing)
    return scores, (targets != ignore_id).sum().clamp(min=1)


def one_pass_losses(
    output: CIFDecoderOutput,
    other: Tensor,
    targets: Tensor,
    ignore_id: int,
    smoothing: float,
    options: OnePassOptions,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses of the second decoder per target token.

    Args:
        output: Of the one-pass decoder.
        other: Logits of the autoregressive decoder for the same tokens, ``(B, L, V)``;
            they get no gradient.
        targets: ``(B, L)`` int64.
        ignore_id: Target that is padding.
        smoothing: Label smoothing.
        options: The weights.

    Returns:
        The weighted loss, and statistics for the log.
    """
    n_tokens = (targets != ignore_id).sum()
    scores, n_scored = score_output(output, targets, ignore_id, smoothing)
    loss = scores.loss / n_tokens
    stats = {"loss_nar": loss.detach(), "acc_nar": scores.n_correct / n_scored}
    total = options.weight * loss
    if options.distill:
        wide = torch.promote_types(output.logits.dtype, torch.float32)
        logp = output.logits.log_softmax(dim=-1, dtype=wide)
        taught = other.detach().log_softmax(dim=-1, dtype=wide)
        divergence = (taught.exp() * (taught - logp)).sum(dim=-1)  # (B, L)
        unscored = targets == ignore_id
        if output.scored is not None:
            unscored = unscored | ~output.scored
        distilled = divergence.masked_fill(unscored, 0.0).sum() / n_tokens
        stats["loss_nar_distill"] = distilled.detach()
        total = total + options.distill * distilled
    return total, stats
