"""Search over the fired vectors of a stream: greedy, or with a small beam.

The number of vectors of a stream is not known, and so neither is the place at which
``<eos>`` may come (:mod:`espnet_cif_hkd.decoder.ending`). A step is final as soon as
this place does not matter: ``<eos>`` is not among the best tokens, or so many further
vectors have fired that it would be too early. Otherwise the step waits. So the tokens
are those of the search over all vectors.

Shapes: N hypotheses, D size of a vector, V vocabulary, P tokens that all hypotheses
share, R further tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.frame_attention import NearFrames


@dataclass(frozen=True)
class StreamedToken:
    """A token that does not change any more.

    Attributes:
        id: Index in the token list.
        logp: Log-probability after the tokens before it.
    """

    id: int
    logp: float


@dataclass(frozen=True)
class _Beam:
    """Hypotheses that share the emitted tokens.

    Attributes:
        ids: Tokens that are not emitted, ``(N, R)`` int64.
        logps: Their log-probabilities, ``(N, R)``.
        scores: Sums of log-probabilities of all tokens, ``(N,)``.
    """

    ids: Tensor
    logps: Tensor
    scores: Tensor


class StreamingSearch:
    """Search over vectors that come one after the other.

    With a beam of 1, tokens and score are those of
    :func:`espnet_cif_hkd.search.greedy.greedy_search` for all vectors. With a larger
    beam they are those of ESPnet's beam search with the decoder alone, without its
    criterion for an early end. A token is emitted when all hypotheses agree on it and
    on those before it.

    Args:
        decoder: In ``eval`` mode.
        beam_size: Number of hypotheses.

    Attributes:
        score: After :meth:`finish`, log-probability of the hypothesis.
        waiting: Number of vectors without a final step.
    """

    def __init__(self, decoder: CIFDecoder, beam_size: int = 1) -> None:
        self._decoder, self._beam_size = decoder, beam_size
        self._vectors: list[tuple[Tensor, NearFrames | None]] = []
        self._n_fired = self._step = 0
        parameter = decoder.output_layer.weight
        self._previous = parameter.new_zeros(1, parameter.size(1))
        self._last = torch.full((1, 1), decoder.sos, device=parameter.device)
        none = parameter.new_zeros(1, 0)
        self._beam = _Beam(none.long(), none, parameter.new_zeros(1).double())
        self._ended: list[tuple[float, list[StreamedToken]]] = []
        self._shared: dict[int, Tensor] = {}  # layer: (2, 1, P, D)
        self._own: dict[int, Tensor] = {}  # layer: (2, N, R, D)
        self._computed: Tensor | None = None  # log-probabilities of a step that waits
        self.score = 0.0

    @property
    def waiting(self) -> int:
        return len(self._vectors)

    @property
    def state_bytes(self) -> int:
        """Bytes of keys, values and waiting vectors."""
        tensors = [*self._shared.values(), *self._own.values(), self._previous]
        tensors += [vector for vector, _ in self._vectors]
        for _, near in self._vectors:
            tensors += [] if near is None else [near.keys, near.values]
        return sum(one.numel() * one.element_size() for one in tensors)

    @torch.no_grad()
    def push(
        self, vectors: Tensor, near: NearFrames | None = None
    ) -> list[StreamedToken]:
        """Search further vectors.

        Args:
            vectors: ``(L, D)``.
            near: Frames around their firings, of one utterance, if the decoder has
                ``frame_window``.

        Returns:
            The tokens that are final now; possibly none.
        """
        for place in range(len(vectors)):
            chosen = torch.tensor([place], device=vectors.device)
            self._vectors.append(
                (vectors[place : place + 1], near and near.tokens(chosen))
            )
        self._n_fired += len(vectors)
        while self._vectors and self._try_step(last=False):
            pass
        return self._agreed()

    @torch.no_grad()
    def finish(self) -> list[StreamedToken]:
        """End the utterance after the vectors so far; return the remaining tokens."""
        while self._vectors and len(self._beam.scores):
            self._try_step(last=True)
        for row in range(len(self._beam.scores)):
            self._end(row, self._beam, float(self._beam.scores[row]))
        self._vectors = []
        if not self._ended:
            return []
        self.score, tokens = max(self._ended, key=lambda one: one[0])
        return tokens

    def _try_step(self, last: bool) -> bool:
        """Extend the hypotheses by a token, unless the step has to wait."""
        eos = self._decoder.eos
        if self._computed is None:
            self._computed = self._extend()
        logp = self._computed  # (N, V)
        too_early = self._step < self._n_fired - 1 - self._decoder.eos_slack
        if too_early:
            logp = logp.index_fill(1, torch.tensor([eos], device=logp.device), -1e10)
        n_tokens = logp.size(1)
        scores = self._beam.scores[:, None] + logp.double()
        best, places = scores.flatten().topk(min(self._beam_size, scores.numel()))
        parents, ids = places // n_tokens, places % n_tokens
        if not (too_early or last) and (ids == eos).any():
            return False
        logps = logp.flatten()[places]
        kept = []
        for rank, (parent, token) in enumerate(
            zip(parents.tolist(), ids.tolist(), strict=True)
        ):
            if token != eos:
                kept.append(rank)
            elif not too_early:
                self._end(parent, self._beam, float(best[rank]))
        self._reorder(parents[kept], ids[kept], logps[kept], best[kept])
        vector, _ = self._vectors.pop(0)
        self._previous = vector.to(self._previous.dtype)
        self._step += 1
        self._computed = None
        return True

    def _extend(self) -> Tensor:
        vector, near = self._vectors[0]
        logits = self._decoder.extend(
            self._last,
            self._previous[None],
            vector,
            self._step,
            self._exchange,
            near=near,
        )
        return logits.log_softmax(dim=-1)

    def _exchange(
        self, layer: int, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Store keys and values, ``(N, 1, D)``; return those of all tokens."""
        new = torch.stack([keys, values])
        if layer in self._own:
            new = torch.cat([self._own[layer], new], dim=2)
        self._own[layer] = new
        if layer in self._shared:
            shared = self._shared[layer].expand(-1, new.size(1), -1, -1)
            new = torch.cat([shared, new], dim=2)
        return new[0], new[1]

    def _reorder(
        self, parents: Tensor, ids: Tensor, logps: Tensor, scores: Tensor
    ) -> None:
        beam = self._beam
        self._beam = _Beam(
            torch.cat([beam.ids[parents], ids[:, None]], dim=1),
            torch.cat([beam.logps[parents], logps[:, None]], dim=1),
            scores,
        )
        self._last = ids[:, None]
        self._own = {
            layer: kept.index_select(1, parents) for layer, kept in self._own.items()
        }

    def _end(self, row: int, beam: _Beam, score: float) -> None:
        tokens = _tokens(beam.ids[row], beam.logps[row])
        self._ended.append((score, tokens))

    def _agreed(self) -> list[StreamedToken]:
        """Remove the tokens on which all hypotheses agree, and return them."""
        ids = self._beam.ids
        same = (ids == ids[:1]).all(dim=0).long().cumprod(dim=0)
        count = int(same.sum())
        if count == 0:
            return []
        tokens = _tokens(ids[0, :count], self._beam.logps[0, :count])
        self._beam = _Beam(
            ids[:, count:], self._beam.logps[:, count:], self._beam.scores
        )
        # Keys and values belong to the tokens that have been read: all but the last.
        for layer, own in self._own.items():
            n_kept = ids.size(1) - count
            n_moved = max(0, own.size(2) - n_kept)
            moved = own[:, :1, :n_moved]
            if layer in self._shared:
                moved = torch.cat([self._shared[layer], moved], dim=2)
            self._shared[layer] = moved
            self._own[layer] = own[:, :, n_moved:]
        return tokens


def _tokens(ids: Tensor, logps: Tensor) -> list[StreamedToken]:
    return [
        StreamedToken(*one) for one in zip(ids.tolist(), logps.tolist(), strict=True)
    ]
