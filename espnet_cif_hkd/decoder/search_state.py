"""Data that the hypotheses of a search share: fired vectors, keys and values.

A search scores each token of each hypothesis once. A pool that only grows stores keys
and values; a hypothesis is a list of row indices of this pool. A step writes the new
rows and reads the rows that it attends to. Reordering of beams moves no keys. Older
states stay valid, and ended hypotheses refer to the pool instead of a copy of keys.
"""

import logging
from dataclasses import dataclass

import torch

from espnet_cif_hkd.cif import CIFOutput
from espnet_cif_hkd.decoder.near import Near
from espnet_cif_hkd.errors import UserError

BLOCKS = (
    "decoder: cif cannot decode block by block in ESPnet's search: decode without "
    "--use_streaming (asr.sh), asr_inference_streaming and --streaming, or use "
    "Recognizer.stream()"
)
_FIRST_ROWS = 256


class KeyValuePool:
    """Keys and values of all scored tokens of a search, one row for each token.

    Args:
        n_layers: Number of decoder layers; each has its own keys and values.
    """

    def __init__(self, n_layers: int) -> None:
        self._stored: list[torch.Tensor | None] = [None] * n_layers
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def claim(self, n_hyp: int, n_new: int, device: torch.device) -> torch.Tensor:
        """Rows for new tokens of N hypotheses, ``(N, new)`` int64."""
        first = self._used
        self._used += n_hyp * n_new
        return torch.arange(first, self._used, device=device).view(n_hyp, n_new)

    def exchange(
        self, layer: int, rows: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values; return those that the new tokens attend to.

        Args:
            layer: Index of the layer.
            rows: Rows of the tokens of each hypothesis, ``(N, P + new)``; the last
                ``new`` were claimed last.
            keys: Keys of the new tokens, ``(N, new, D)``.
            values: Values of the new tokens, ``(N, new, D)``.

        Returns:
            Keys and values of all tokens of each hypothesis, ``(N, P + new, D)``.
        """
        n_hyp, n_new, size = keys.shape
        stored = self._stored[layer]
        if stored is None:
            stored = keys.new_empty(2, max(_FIRST_ROWS, self._used), size)
        elif stored.size(1) < self._used:
            grown = stored.new_empty(2, 2 * self._used, size)
            grown[:, : stored.size(1)] = stored
            stored = grown
        self._stored[layer] = stored
        first = self._used - n_hyp * n_new
        stored[0, first : self._used] = keys.flatten(0, 1)
        stored[1, first : self._used] = values.flatten(0, 1)
        found = stored.index_select(1, rows.flatten()).unflatten(1, rows.shape)
        return found[0], found[1]


@dataclass(frozen=True)
class FiredTokens:
    """The fired vectors of B utterances, computed once before a search.

    Attributes:
        embeddings: ``(B, L, D)``, L at least 1.
        lengths: Number of fired vectors, ``(B,)`` int64 on the CPU, so that a check for
            the end of an utterance does not wait for the GPU.
        near: Frames around each firing, if the decoder attends to them.
    """

    embeddings: torch.Tensor
    lengths: torch.Tensor
    near: Near | None = None

    def at(
        self, steps: torch.Tensor, owners: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors fired for tokens of N hypotheses, and those fired before them.

        ESPnet 202611 also scores hypotheses that have ended: steps after the last
        vector use the last one.

        Args:
            steps: ``(new,)`` int64.
            owners: Utterance index of each hypothesis, ``(N,)``; None if there is one
                utterance.

        Returns:
            Current and previous vectors, ``(N or 1, new, D)``.
        """
        last = self.embeddings.size(1) - 1
        current = self.embeddings.index_select(1, steps.clamp(max=last))
        previous = self.embeddings.index_select(1, (steps - 1).clamp(0, last))
        previous = previous.masked_fill((steps == 0)[:, None], 0.0)
        if owners is None:
            return current, previous
        return current.index_select(0, owners), previous.index_select(0, owners)

    def near_at(self, steps: torch.Tensor, owners: torch.Tensor | None) -> Near | None:
        """The frames around the firing of tokens; arguments as those of :meth:`at`."""
        if self.near is None:
            return None
        near = self.near.tokens(steps)
        return near if owners is None else near.utterances(owners)


def ready_for_search(fired: CIFOutput, hlens: torch.Tensor) -> FiredTokens:
    """Fired vectors for a search, with warnings about unusual lengths.

    Args:
        fired: Fired vectors of B utterances.
        hlens: Number of valid frames, ``(B,)``.

    Raises:
        UserError: If alpha of an utterance is not finite.
    """
    # One transfer from the device. NaN has no number of tokens.
    quantity, counts = torch.stack([fired.quantity.double(), fired.lengths]).cpu()
    if not quantity.isfinite().all():
        place = int(quantity.isfinite().int().argmin())
        raise UserError(
            f"utterance {place} of the batch: the encoder's output is not finite; "
            "check the audio and the model's parameters for NaN and infinity"
        )
    lengths = counts.long()
    for n_fired, n_frames in zip(lengths.tolist(), hlens.tolist(), strict=True):
        if n_fired == 0:
            logging.warning("no token fired: the hypothesis is empty")
        if n_fired > n_frames:
            logging.warning(
                "%d tokens fired from %d encoder frames: with maxlenratio 0 the "
                "search stops after %d; use less sub-sampling, longer units or a "
                "maxlenratio",
                n_fired,
                n_frames,
                n_frames,
            )
    embeddings = fired.embeddings
    if embeddings.size(1) == 0:  # nothing fired: one vector without effect
        n_batch, _, size = embeddings.shape
        embeddings = embeddings.new_zeros(n_batch, 1, size)
    return FiredTokens(embeddings, lengths)


@dataclass(frozen=True)
class Scored:
    """N hypotheses after a step.

    Attributes:
        owners: Utterance index of each, ``(N,)`` int64 on the CPU.
        rows: Pool rows of their tokens, ``(N, i)`` int64.
    """

    owners: torch.Tensor
    rows: torch.Tensor


@dataclass(frozen=True)
class HypothesisState:
    """State of one hypothesis in ESPnet's search.

    Attributes:
        fired: Fired vectors of all utterances of the search.
        pool: Keys and values of all hypotheses of the search.
        scored: The last step that scored this hypothesis; None before the first step.
        index: Index of this hypothesis in ``scored``.
    """

    fired: FiredTokens
    pool: KeyValuePool
    scored: Scored | None = None
    index: int = 0


def gathered(states: list[HypothesisState]) -> Scored:
    """The scored tokens of N hypotheses of one search, in the order of ``states``."""
    scored = states[0].scored
    if scored is None:
        # The common initial state; hypotheses are in utterance-major order.
        n_utterances = states[0].fired.embeddings.size(0)
        owners = torch.arange(n_utterances).repeat_interleave(
            len(states) // n_utterances
        )
        device = states[0].fired.embeddings.device
        empty = torch.empty(len(states), 0, dtype=torch.long, device=device)
        return Scored(owners, empty)
    if all(state.scored is scored for state in states):
        order = torch.tensor([state.index for state in states])
        return Scored(scored.owners[order], scored.rows[order.to(scored.rows.device)])
    each = [gathered([state]) for state in states]
    return Scored(
        torch.cat([one.owners for one in each]), torch.cat([one.rows for one in each])
    )
