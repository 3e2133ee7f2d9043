"""``decoder: cif_whisper`` as graphs: the memory of an utterance, and one step.

Shapes: as in :mod:`espnet_cif_hkd.decoder.cross_layer`; B: utterances, N: hypotheses,
P: earlier steps, T: frames, L: fired vectors, M: both, Y:
layers of the decoder, E: size of fired vectors.
"""

import torch
from torch import Tensor

from espnet_cif_hkd.decoder.cif_whisper import CIFWhisperDecoder
from espnet_cif_hkd.decoder.cross_layer import Memory
from espnet_cif_hkd.inference.export.graphs import GrowingCache, stacked
from espnet_cif_hkd.inference.export.onnx_files import Graph

_MEMORY = ("memory_keys", "memory_values")


class MemoryGraph(torch.nn.Module):
    """What the layers of the decoder read of an utterance.

    Args:
        decoder: Of :func:`espnet_cif_hkd.inference.export.graphs.traceable`.
    """

    outputs = (*_MEMORY, "allowed")

    def __init__(self, decoder: CIFWhisperDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        fired: Tensor,
        token_lengths: Tensor,
        frames: Tensor,
        frame_lengths: Tensor,
        times: Tensor,
    ) -> tuple[Tensor, ...]:
        """Compute keys and values.

        Args:
            fired: Fired vectors, ``(B, L, E)``, L at least 1.
            token_lengths: Their numbers, ``(B,)`` int64.
            frames: Encoder frames, ``(B, T, E)``.
            frame_lengths: Their numbers, ``(B,)`` int64.
            times: When the vectors fire, in frames, ``(B, L)`` float64.

        Returns:
            Keys and values, ``(Y, B, M, D)`` each; True where a token reads, ``(B, L,
            M)`` bool.
        """
        speech, allowed = self.decoder.speech(
            fired, token_lengths, (frames, frame_lengths, times)
        )
        return (*stacked(speech), allowed)


class WhisperStepGraph(torch.nn.Module):
    """One step of the decoder, with the keys and values of a search.

    The first steps are those of the prompt, whose tokens and vectors have no effect.

    Args:
        decoder: Of :func:`espnet_cif_hkd.inference.export.graphs.traceable`.
    """

    outputs = ("logp", "next_keys", "next_values")

    def __init__(self, decoder: CIFWhisperDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        tokens: Tensor,
        current: Tensor,
        keys: Tensor,
        values: Tensor,
        memory_keys: Tensor,
        memory_values: Tensor,
        allowed: Tensor,
    ) -> tuple[Tensor, ...]:
        """Predict the next token.

        Args:
            tokens: The last token of each hypothesis, ``(N,)`` int64.
            current: The vector fired for the next token, ``(N, E)``.
            keys: Of earlier steps, ``(Y, N, P, D)``; P may be 0.
            values: As ``keys``.
            memory_keys: Of the memory, ``(Y, N, M, D)``.
            memory_values: As ``memory_keys``.
            allowed: True where the next token reads the memory, ``(N, M)`` bool.

        Returns:
            Log-probabilities ``(N, V)``; keys and values ``(Y, N, P + 1, D)``.
        """
        cache = GrowingCache(keys, values)
        decoder, n_keys = self.decoder, keys.size(2)
        n_prompt, n_layers = decoder.prompt_length, len(decoder.layers)
        fired, n_before = current[:, None], n_keys - n_prompt
        xs = decoder.inputs(tokens[:, None], fired, n_before)
        if n_prompt:
            place = torch.arange(1) + n_keys
            row = place.clamp(max=n_prompt - 1)
            prompt = decoder.prompt[row] + decoder.position[row]
            xs = torch.where((place < n_prompt)[:, None], prompt, xs)
        speech = tuple((memory_keys[n], memory_values[n]) for n in range(n_layers))
        memory = Memory(speech, (), allowed[:, None])
        hidden = decoder.transform(xs, n_before, memory, cache.exchange)
        logp = decoder.predict(hidden, fired).log_softmax(dim=-1)
        return (logp, *cache.stacked())


def whisper_decoder_graphs(decoder: CIFWhisperDecoder) -> list[Graph]:
    """Return the graphs ``memory`` and ``step``.

    Args:
        decoder: Of :func:`espnet_cif_hkd.inference.export.graphs.traceable`.
    """
    random = torch.Generator().manual_seed(0)
    width = decoder.fired_size
    given = {
        "fired": torch.randn(2, 5, width, generator=random),
        "token_lengths": torch.tensor([5, 3]),
        "frames": torch.randn(2, 9, width, generator=random),
        "frame_lengths": torch.tensor([9, 7]),
        "times": torch.linspace(1.0, 6.5, 5, dtype=torch.float64).expand(2, -1),
    }
    memory = MemoryGraph(decoder).eval()
    with torch.no_grad():
        found = dict(zip(memory.outputs, memory(*given.values()), strict=True))
    axes: dict[str, dict[int, str]] = {name: {0: "B"} for name in given}
    axes |= {name: {0: "B", 1: "L"} for name in ("fired", "times")}
    axes |= {"frames": {0: "B", 1: "T"}, "allowed": {0: "B", 1: "L", 2: "M"}}
    axes |= {name: {1: "B", 2: "M"} for name in _MEMORY}
    graphs = [Graph("memory", memory, given, memory.outputs, axes)]
    past = torch.randn(len(decoder.layers), 2, 3, decoder.size, generator=random)
    step = {
        "tokens": torch.tensor([1, 2]),
        "current": given["fired"][:, 0],
        "keys": past,
        "values": past.clone(),
        **{name: found[name] for name in _MEMORY},
        "allowed": found["allowed"][:, 0],
    }
    axes = {name: {0: "N"} for name in ("tokens", "current", "logp")}
    axes |= {name: {1: "N", 2: "P"} for name in ("keys", "values")}
    axes |= {name: {1: "N", 2: "P1"} for name in ("next_keys", "next_values")}
    axes |= {name: {1: "N", 2: "M"} for name in _MEMORY}
    axes["allowed"] = {0: "N", 1: "M"}
    module = WhisperStepGraph(decoder).eval()
    return [*graphs, Graph("step", module, step, module.outputs, axes)]
