"""Statistics of vectors that fire as in recognition, in validation."""

from typing import Any

import torch


@torch.no_grad()
def free_stats(
    model: Any,
    hs_pad: torch.Tensor,
    hlens: torch.Tensor,
    ys_in_pad: torch.Tensor,
    ys_lens: torch.Tensor,
    text: torch.Tensor,
) -> dict[str, Any]:
    """Return the length error and ``cer_free`` of vectors that fire freely.

    Args:
        model: A :class:`~espnet_cif_hkd.models.cif.CIFASRModel`.
        hs_pad: Encoder frames, ``(B, T, D)``.
        hlens: Valid frames, ``(B,)``.
        ys_in_pad: Tokens shifted right, ``(B, L)``.
        ys_lens: Tokens with ``<eos>``, ``(B,)``.
        text: Tokens, ``(B, U)``.

    ``length_error`` is ``sum |fired - target| / sum target`` over the batch.
    ``cer_free`` decodes known prefixes by argmax over freely fired vectors, as
    the authors' validation "wer" does: every ``<eos>`` is dropped, a token that did
    not fire is a deletion, and another token in the place of ``<eos>`` is an
    insertion. Vectors after that place are ignored, because they have no known
    prefix; the original counts them up to the longest target of the batch.
    """
    fired = model.decoder.fire(hs_pad, hlens)
    length_error = (fired.lengths - ys_lens).abs().sum() / ys_lens.sum()
    stats: dict[str, Any] = {"length_error": length_error}
    if model.error_calculator is None or not model.error_calculator.report_cer:
        return stats
    n_tokens = ys_in_pad.size(1)
    near = model.decoder.near_frames(hs_pad, hlens, fired)
    logits = model.decoder.decode_free(fired, ys_in_pad, near)
    ys_hat = logits.argmax(dim=-1)  # (B, L)
    steps = torch.arange(n_tokens, device=ys_hat.device)
    n_fired = torch.minimum(fired.lengths, ys_lens)
    dropped = (ys_hat == model.eos) | (steps[None, :] >= n_fired[:, None])
    # The calculator drops blanks and cuts a hypothesis at the length of its
    # reference. So each text is passed as the reference.
    ys_hat = ys_hat.masked_fill(dropped, model.blank_id).cpu()
    hyps, _ = model.error_calculator.convert_to_char(ys_hat, ys_hat)
    _, refs = model.error_calculator.convert_to_char(text.cpu(), text.cpu())
    stats["cer_free"] = model.error_calculator.calculate_cer(hyps, refs)
    return stats
