"""Greedy search over fired tokens, for batches of utterances.

The number of fired vectors determines the number of steps of an utterance before the
search begins. So the search sorts utterances by length, and each step processes those
that are not complete. The host does not wait for the device before the last step. The
only loop is over steps, because each token depends on the tokens before it.
"""

import dataclasses
import functools

import torch

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
from espnet_cif_hkd.decoder.ending import is_too_early
from espnet_cif_hkd.decoder.search_state import FiredTokens


@dataclasses.dataclass(frozen=True)
class GreedyHypothesis:
    """The tokens with the highest probability at each step.

    Attributes:
        yseq: Tokens, ``(U + 2,)`` int64 on the CPU: ``<sos>`` first and ``<eos>`` last.
            Of a transducer ``(U + 1,)``: the blank first.
        score: Sum of the log-probabilities of the tokens and of ``<eos>``.
        logp: Log-probability of each token of ``yseq`` without its ends, ``(U,)``.
        weights: The weights that fired, ``(T,)``, padded, if the search chose among
            several; None: those of the decoder.
        least: Of a one-pass decoder: the probability of the least probable token,
            ``<eos>`` included.
    """

    yseq: torch.Tensor
    score: float
    logp: torch.Tensor
    weights: torch.Tensor | None = None
    least: float = 1.0


@torch.no_grad()
def greedy_search(
    decoder: CIFDecoder,
    hs_pad: torch.Tensor,
    hlens: torch.Tensor,
    maxlenratio: float = 0.0,
    target_lengths: torch.Tensor | None = None,
) -> list[GreedyHypothesis]:
    """Choose the token with the highest probability at each step.

    With ``length_conf`` the decoder chooses among several numbers of tokens. Tokens and
    scores are those of ESPnet's beam search with beam 1, without CTC and language
    model. One exception: if ``<eos>`` is chosen at the limit of
    ``maxlenratio``, ESPnet writes a second ``<eos>``.

    Args:
        decoder: In ``eval`` mode. A one-pass decoder has no steps: see
            :func:`espnet_cif_hkd.search.nar.one_pass_search`.
        hs_pad: Encoder frames, ``(B, T, D)``.
        hlens: Number of valid frames, ``(B,)`` integer.
        maxlenratio: As in ESPnet, the largest number of tokens per frame; 0 allows as
            many tokens as frames, -n allows n.
        target_lengths: Known number of tokens, ``<eos>`` included, ``(B,)`` integer, to
            which alpha is scaled, for an analysis; None: alpha determines it.

    Returns:
        One hypothesis for each utterance.

    Raises:
        UserError: If the encoder output of an utterance is not finite.
    """
    if isinstance(decoder, CIFNARDecoder):
        from espnet_cif_hkd.search.nar import one_pass_search

        return one_pass_search(decoder, hs_pad, hlens, maxlenratio, target_lengths)
    if decoder.length_search is not None and target_lengths is None:

        def search(
            frames: torch.Tensor, lengths: torch.Tensor, weights: torch.Tensor
        ) -> list[GreedyHypothesis]:
            fired = decoder.fire_by(weights, frames, lengths)
            return _search(decoder, fired, lengths, maxlenratio)

        return decoder.length_search.best(decoder, hs_pad, hlens, search)
    fired = decoder.fire_freely(hs_pad, hlens, target_lengths)
    return _search(decoder, fired, hlens, maxlenratio)


def _search(
    decoder: CIFDecoder, fired: FiredTokens, hlens: torch.Tensor, maxlenratio: float
) -> list[GreedyHypothesis]:
    """Search the tokens of fired vectors."""
    device = fired.embeddings.device
    n_steps = torch.minimum(fired.lengths, _limits(hlens.cpu(), maxlenratio))
    n_steps, order = n_steps.sort(descending=True, stable=True)
    lengths = fired.lengths[order].to(device)
    embeddings = fired.embeddings.index_select(0, order.to(device))
    previous = torch.nn.functional.pad(embeddings[:, :-1], (0, 0, 1, 0))
    near = fired.near
    if near is not None:
        near = near.utterances(order.to(device))
    steps = torch.arange(embeddings.size(1), device=device)

    n_utterances, n_total = len(order), int(n_steps.max())
    tokens = n_steps.new_full((n_utterances, n_total + 2), decoder.eos, device=device)
    tokens[:, 0] = decoder.sos
    logp = embeddings.new_zeros(n_utterances, n_total)
    cache = _Cache(n_utterances, n_total)
    running = (n_steps[:, None] > torch.arange(n_total)).sum(dim=0).tolist()
    for step, n in enumerate(running):
        logits = decoder.extend(
            tokens[:n, step : step + 1],
            previous[:n, step : step + 1],
            embeddings[:n, step],
            step,
            functools.partial(cache.exchange, step),
            near=near and near.first(n).tokens(steps[step : step + 1]),
        )
        total = logits.logsumexp(dim=-1)
        early = is_too_early(step, lengths[:n], decoder.eos_slack)
        logits[:, decoder.eos].masked_fill_(early, -torch.inf)
        best, token = logits.max(dim=-1)
        tokens[:n, step + 1] = token
        logp[:n, step] = (best - total).to(logp.dtype)

    chosen = (tokens[:, 1:] == decoder.eos).long()
    n_tokens = chosen.argmax(dim=1)  # the first <eos>
    counted = torch.arange(n_total, device=device) <= n_tokens[:, None]
    scores = (logp * counted).sum(dim=1).tolist()
    found = [
        GreedyHypothesis(row[: n + 2], score, each[:n])
        for row, n, score, each in zip(
            tokens.cpu(), n_tokens.tolist(), scores, logp.cpu(), strict=True
        )
    ]
    return [found[place] for place in order.argsort().tolist()]


def _limits(hlens: torch.Tensor, maxlenratio: float) -> torch.Tensor:
    """Largest number of tokens of each utterance, ``(B,)``."""
    if maxlenratio == 0:
        return hlens
    if maxlenratio < 0:
        return torch.full_like(hlens, -int(maxlenratio))
    return (hlens.double() * maxlenratio).long().clamp(min=1)


class _Cache:
    """Keys and values of each layer, indexed by step."""

    def __init__(self, n_utterances: int, n_steps: int) -> None:
        self._shape = (2, n_utterances, n_steps)
        self._layers: dict[int, torch.Tensor] = {}

    def exchange(
        self, step: int, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values of a step, ``(n, 1, D)``; return those of all steps.

        Returns:
            Two tensors, ``(n, step + 1, D)``.
        """
        if layer not in self._layers:
            self._layers[layer] = keys.new_empty(*self._shape, keys.size(2))
        stored = self._layers[layer][:, : len(keys)]
        stored[0, :, step] = keys[:, 0]
        stored[1, :, step] = values[:, 0]
        return stored[0, :, : step + 1], stored[1, :, : step + 1]
