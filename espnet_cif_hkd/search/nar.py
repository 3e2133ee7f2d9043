"""Search of a one-pass decoder: the likeliest token of each position, in one batch."""

import torch

from espnet_cif_hkd.cif import CIFOutput
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
from espnet_cif_hkd.decoder.ending import is_too_early
from espnet_cif_hkd.decoder.search_state import ready_for_search
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
    firing = firing or decoder
    if firing.length_search is not None and target_lengths is None:

        def search(
            frames: torch.Tensor, lengths: torch.Tensor, weights: torch.Tensor
        ) -> list[GreedyHypothesis]:
            fired = firing.integrate(weights, frames, lengths)
            return _search(decoder, fired, frames, lengths, maxlenratio)

        return firing.length_search.best(firing, hs_pad, hlens, search)
    fired = firing.fire(hs_pad, hlens.to(hs_pad.device), target_lengths)
    return _search(decoder, fired, hs_pad, hlens, maxlenratio)


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
    found = one_pass_search(one_pass, hs_pad, hlens, maxlenratio, firing=decoder)
    weak = [n for n, one in enumerate(found) if one.least < threshold]
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
    output: CIFOutput,
    hs_pad: torch.Tensor,
    hlens: torch.Tensor,
    maxlenratio: float,
) -> list[GreedyHypothesis]:
    """Search the tokens of vectors that have fired from frames ``(B, T, D)``."""
    hlens = hlens.cpu()
    fired = ready_for_search(output, hlens)
    near = decoder.near_frames(hs_pad, hlens, output)
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
    scores = logp.sum(dim=1).tolist()
    least = logp.amin(dim=1).exp().tolist()
    yseq = torch.cat([torch.full_like(ends, decoder.sos), token], dim=1).cpu()
    return [
        GreedyHypothesis(row[: n + 2], score, each[:n], least=low)
        for row, n, score, each, low in zip(
            yseq, n_tokens.tolist(), scores, logp.float().cpu(), least, strict=True
        )
    ]
