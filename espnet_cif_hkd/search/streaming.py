"""Search over the fired vectors of a stream with a decoder in torch.

Shapes: N hypotheses, D size of a vector, P tokens that all hypotheses share, R further
tokens.
"""

import torch
from torch import Tensor

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.frame_attention import NearFrames
from espnet_cif_hkd.search.stepwise import Array, Steps, StepwiseSearch, StreamedToken

# A fired vector, (1, D), and the frames around its firing.
_Vector = tuple[Tensor, NearFrames | None]


class DecoderSteps(Steps[_Vector]):
    """The steps of a decoder.

    Keys and values of tokens on which all hypotheses agree are stored once.

    Args:
        decoder: In ``eval`` mode.
    """

    def __init__(self, decoder: CIFDecoder) -> None:
        self.sos, self.eos, self.eos_slack = decoder.sos, decoder.eos, decoder.eos_slack
        self._decoder = decoder
        parameter = decoder.output_layer.weight
        self._previous = parameter.new_zeros(1, parameter.size(1))
        self._shared: dict[int, Tensor] = {}  # layer: (2, 1, P, D)
        self._own: dict[int, Tensor] = {}  # layer: (2, N, R, D)

    def state_bytes(self, waiting: list[_Vector]) -> int:
        """Bytes of keys, values and waiting vectors."""
        tensors = [*self._shared.values(), *self._own.values(), self._previous]
        tensors += [vector for vector, _ in waiting]
        for _, near in waiting:
            tensors += [] if near is None else [near.keys, near.values]
        return sum(one.numel() * one.element_size() for one in tensors)

    @torch.no_grad()
    def extend(self, tokens: Array, step: int, current: _Vector) -> Array:
        """Log-probabilities of the next token; see :class:`Steps`."""
        vector, near = current
        logits = self._decoder.extend(
            torch.from_numpy(tokens).to(vector.device)[:, None],
            self._previous[None],
            vector,
            step,
            self._exchange,
            near=near,
        )
        found: Array = logits.log_softmax(dim=-1).cpu().numpy()
        return found

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

    def keep(self, parents: Array, current: _Vector) -> None:
        """End a step; see :class:`Steps`."""
        self._previous = current[0].to(self._previous.dtype)
        chosen = torch.from_numpy(parents).to(self._previous.device)
        self._own = {
            layer: kept.index_select(1, chosen) for layer, kept in self._own.items()
        }

    def share(self, n_own: int) -> None:
        """Move keys and values that all hypotheses share; see :class:`Steps`."""
        # Keys and values belong to the tokens that have been read: all but the last.
        for layer, own in self._own.items():
            n_moved = max(0, own.size(2) - n_own)
            moved = own[:, :1, :n_moved]
            if layer in self._shared:
                moved = torch.cat([self._shared[layer], moved], dim=2)
            self._shared[layer] = moved
            self._own[layer] = own[:, :, n_moved:]


class StreamingSearch(StepwiseSearch[_Vector]):
    """Search over vectors that come one after the other; see :class:`StepwiseSearch`.

    Args:
        decoder: In ``eval`` mode.
        beam_size: Number of hypotheses.
    """

    def __init__(self, decoder: CIFDecoder, beam_size: int = 1) -> None:
        super().__init__(DecoderSteps(decoder), beam_size)

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
        return self.add(waiting_vectors(vectors, near))


def waiting_vectors(vectors: Tensor, near: NearFrames | None) -> list[_Vector]:
    """Divide vectors ``(L, D)`` and what is around their firings, for a search."""
    places = torch.arange(len(vectors), device=vectors.device)
    return [
        (vectors[n : n + 1], near and near.tokens(places[n : n + 1]))
        for n in range(len(vectors))
    ]
