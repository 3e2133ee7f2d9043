"""Search of a one-pass decoder: the likeliest token of each position, in one batch."""

import torch

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
from espnet_cif_hkd.decoder.ending import is_too_early
from espnet_cif_hkd.search.greedy import GreedyHypothesis, _limits, greedy_search


@torch.no_grad()
def one_pass_search(
    decoder: CIFNARDecoder,
    hs_pad: torch.Tensor,
    hlens: torch.Tensor,
    maxlenratio: float = 0.0,
    target_lengths: torch.Tensor | None = None,
    firing: CIFDecoder | None = None,
) -> list[GreedyHypothesis]:
    """Choose the token with the highest probability at each position.

    Tokens and scores are those of ESPnet's beam search with beam 1, without CTC and
    language model.

    Args:
        decoder: In ``eval`` mode.
        hs_pad: Encoder frames, ``(B, T, D)``.
        hlens: Number of valid frames, ``(B,)`` integer.
        maxlenratio: As in :func:`greedy_search`.
        target_lengths: As in :func:`greedy_search`.
        firing: The decoder that fires, if ``decoder`` is one beside it; None:
            ``decoder`` itself.

    Returns:
        One hypothesis for each utterance.

    Raises:
        UserError: If the encoder output of an utterance is not finite.
    """
    return _search(
        decoder, firing or decoder, hs_pad, hlens, maxlenratio, target_lengths
    )[0]


@torch.no_grad()
def search_with_fallback(
    one_pass: CIFNARDecoder,
    decoder: CIFDecoder,
    hs_pad: torch.Tensor,
    hlens: torch.Tensor,
    threshold: float,
    maxlenratio: float = 0.0,
) -> list[GreedyHypothesis]:
    """Decode in one pass; utterances of low confidence again, token by token.

    Args:
        one_pass: The decoder beside ``decoder``.
        decoder: The autoregressive decoder, which fires.
        hs_pad: Encoder frames, ``(B, T, D)``.
        hlens: Number of valid frames, ``(B,)`` integer.
        threshold: Utterances whose least probable token has a probability below this
            are decoded by :func:`greedy_search`.
        maxlenratio: As in :func:`greedy_search`.

    Returns:
        One hypothesis for each utterance.
    """
    found, least = _search(one_pass, decoder, hs_pad, hlens, maxlenratio)
    weak = [n for n, probability in enumerate(least) if probability < threshold]
    if weak:
        rows = torch.tensor(weak)
        lengths = hlens.cpu()[rows]
        frames = hs_pad[rows.to(hs_pad.device), : int(lengths.max())]
        again = greedy_search(decoder, frames, lengths, maxlenratio)
        for place, one in zip(weak, again, strict=True):
            found[place] = one
    return found


def _search(
    decoder: CIFNARDecoder,
    firing: CIFDecoder,
    hs_pad: torch.Tensor,
    hlens: torch.Tensor,
    maxlenratio: float,
    target_lengths: torch.Tensor | None = None,
) -> tuple[list[GreedyHypothesis], list[float]]:
    """Hypotheses, and the probability of the least probable token of each."""
    hlens = hlens.cpu()
    fired = firing.fire_freely(hs_pad, hlens, target_lengths)
    near = fired.near
    if decoder is not firing and decoder.frame_attention is not None:
        fires = firing.fire(hs_pad, hlens.to(hs_pad.device), target_lengths)
        near = decoder.near_frames(hs_pad, hlens, fires)
    logits = decoder.predict(fired.embeddings, fired.lengths, near)  # (B, L, V)
    lengths = fired.lengths.to(logits.device)[:, None]
    step = torch.arange(logits.size(1), device=logits.device)
    total = logits.logsumexp(dim=-1)
    early = is_too_early(step, lengths, decoder.eos_slack)  # (B, L)
    logits[..., decoder.eos].masked_fill_(early, -torch.inf)
    best, token = logits.max(dim=-1)
    logp = best - total
    n_steps = torch.minimum(fired.lengths, _limits(hlens, maxlenratio))
    over = step >= n_steps.to(step.device)[:, None]
    token, logp = token.masked_fill(over, decoder.eos), logp.masked_fill(over, 0.0)
    ends = torch.full_like(token[:, :1], decoder.eos)
    # The first <eos> ends an utterance.
    token = torch.cat([token, ends], dim=1)
    n_tokens = (token == decoder.eos).long().argmax(dim=1)  # (B,)
    counted = step <= n_tokens[:, None]
    logp = logp.masked_fill(~counted, 0.0)
    scores = torch.stack([logp.sum(dim=1), logp.amin(dim=1).exp()]).tolist()
    yseq = torch.cat([torch.full_like(ends, decoder.sos), token], dim=1).cpu()
    found = [
        GreedyHypothesis(row[: n + 2], score, each[:n])
        for row, n, score, each in zip(
            yseq, n_tokens.tolist(), scores[0], logp.float().cpu(), strict=True
        )
    ]
    return found, scores[1]
