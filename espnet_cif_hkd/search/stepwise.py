"""Search over the fired vectors of a stream: greedy, or with a small beam.

The number of vectors of a stream is not known, and so neither is the place at which
``<eos>`` may come (:mod:`espnet_cif_hkd.decoder.ending`). A step is final as soon as
this place does not matter: ``<eos>`` is not among the best tokens, or so many further
vectors have fired that it would be too early. Otherwise the step waits. So the tokens
are those of the search over all vectors.

This module needs neither torch nor ESPnet, so that exported models use it as well.

Shapes: N hypotheses, V vocabulary, R further tokens.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Waiting = TypeVar("Waiting")
_LOG_ZERO = -1e10


@dataclass(frozen=True)
class StreamedToken:
    """A token that does not change any more.

    Attributes:
        id: Index in the token list.
        logp: Log-probability after the tokens before it.
    """

    id: int
    logp: float


class Steps(ABC, Generic[Waiting]):
    """The decoder of a search, with the keys and values of its hypotheses.

    ``Waiting`` is a fired vector with what the decoder needs beside it.

    Attributes:
        sos: Index of ``<sos>``.
        eos: Index of ``<eos>``.
        eos_slack: Of the decoder.
    """

    sos: int
    eos: int
    eos_slack: int

    @abstractmethod
    def extend(self, tokens: Array, step: int, current: Waiting) -> Array:
        """Read the last token of each hypothesis; predict the next one.

        Args:
            tokens: ``(N,)`` int64.
            step: Number of tokens before it.
            current: Fired for the next token.

        Returns:
            Log-probabilities, ``(N, V)``.
        """

    @abstractmethod
    def keep(self, parents: Array, current: Waiting) -> None:
        """End a step.

        Args:
            parents: The hypotheses that go on, ``(N,)`` int64; one may be there twice.
            current: Fired for the token that they got.
        """

    def share(self, n_own: int) -> None:
        """Take note that hypotheses differ in their last ``n_own`` tokens only."""

    @abstractmethod
    def state_bytes(self, waiting: list[Waiting]) -> int:
        """Bytes of keys, values and waiting vectors."""


@dataclass(frozen=True)
class _Beam:
    """Hypotheses that share the emitted tokens.

    Attributes:
        ids: Tokens that are not emitted, ``(N, R)`` int64.
        logps: Their log-probabilities, ``(N, R)``.
        scores: Sums of log-probabilities of all tokens, ``(N,)``.
    """

    ids: Array
    logps: Array
    scores: Array


class StepwiseSearch(Generic[Waiting]):
    """Search over vectors that come one after the other.

    With a beam of 1, tokens and score are those of
    ``espnet_cif_hkd.search.greedy.greedy_search`` for all vectors. With a larger beam
    they are those of ESPnet's beam search with the decoder alone, without its criterion
    for an early end. A token is emitted when all hypotheses agree on it and on those
    before it.

    Args:
        steps: The decoder, before the first token.
        beam_size: Number of hypotheses.

    Attributes:
        score: After :meth:`finish`, log-probability of the hypothesis.
        waiting: Number of vectors without a final step.
    """

    def __init__(self, steps: Steps[Waiting], beam_size: int = 1) -> None:
        self._steps, self._beam_size = steps, beam_size
        self._vectors: list[Waiting] = []
        self._n_fired = self._step = 0
        self._last = np.array([steps.sos])
        none = np.zeros((1, 0))
        self._beam = _Beam(none.astype(np.int64), none, np.zeros(1))
        self._ended: list[tuple[float, list[StreamedToken]]] = []
        self._computed: Array | None = None  # log-probabilities of a step that waits
        self.score = 0.0

    @property
    def waiting(self) -> int:
        return len(self._vectors)

    @property
    def state_bytes(self) -> int:
        """Bytes of keys, values and waiting vectors."""
        return self._steps.state_bytes(self._vectors)

    def add(self, vectors: list[Waiting]) -> list[StreamedToken]:
        """Search further vectors; return the tokens that are final now."""
        self._vectors += vectors
        self._n_fired += len(vectors)
        while self._vectors and self._try_step(last=False):
            pass
        return self._agreed()

    def finish(self) -> list[StreamedToken]:
        """End the utterance after the vectors so far; return the remaining tokens."""
        while self._vectors and len(self._beam.scores):
            self._try_step(last=True)
        for row in range(len(self._beam.scores)):
            self._end(row, float(self._beam.scores[row]))
        self._vectors = []
        if not self._ended:
            return []
        self.score, tokens = max(self._ended, key=lambda one: one[0])
        return tokens

    def _try_step(self, last: bool) -> bool:
        """Extend the hypotheses by a token, unless the step has to wait."""
        steps, beam = self._steps, self._beam
        if self._computed is None:
            self._computed = steps.extend(self._last, self._step, self._vectors[0])
        logp = self._computed.astype(np.float64)  # (N, V)
        too_early = self._step < self._n_fired - 1 - steps.eos_slack
        if too_early:
            logp[:, steps.eos] = _LOG_ZERO
        scores = (beam.scores[:, None] + logp).ravel()
        places = _best(scores, self._beam_size)
        parents, ids = np.divmod(places, logp.shape[1])
        if not (too_early or last) and (ids == steps.eos).any():
            return False
        kept = ids != steps.eos
        if not too_early:
            for place, parent in zip(places[~kept], parents[~kept], strict=True):
                self._end(int(parent), float(scores[place]))
        places, parents, self._last = places[kept], parents[kept], ids[kept]
        self._beam = _Beam(
            np.concatenate([beam.ids[parents], self._last[:, None]], axis=1),
            np.concatenate([beam.logps[parents], logp.ravel()[places, None]], axis=1),
            scores[places],
        )
        steps.keep(parents, self._vectors.pop(0))
        self._step += 1
        self._computed = None
        return True

    def _end(self, row: int, score: float) -> None:
        tokens = _tokens(self._beam.ids[row], self._beam.logps[row])
        self._ended.append((score, tokens))

    def _agreed(self) -> list[StreamedToken]:
        """Remove the tokens on which all hypotheses agree, and return them."""
        beam = self._beam
        differs = (beam.ids != beam.ids[:1]).any(axis=0)
        count = int(differs.argmax()) if differs.any() else beam.ids.shape[1]
        if count == 0 or not len(beam.ids):
            return []
        tokens = _tokens(beam.ids[0, :count], beam.logps[0, :count])
        self._beam = _Beam(beam.ids[:, count:], beam.logps[:, count:], beam.scores)
        self._steps.share(self._beam.ids.shape[1])
        return tokens


def _best(scores: Array, count: int) -> Array:
    """Places of the highest scores, best first."""
    count = min(count, len(scores))
    if count == 1:
        return np.array([scores.argmax()])
    places = np.argpartition(-scores, count - 1)[:count]
    return places[np.argsort(-scores[places], kind="stable")]


def _tokens(ids: Array, logps: Array) -> list[StreamedToken]:
    return [
        StreamedToken(*one) for one in zip(ids.tolist(), logps.tolist(), strict=True)
    ]
