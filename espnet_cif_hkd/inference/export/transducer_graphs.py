"""A transducer as graphs: encoder, prediction network and joint network.

Shapes: B utterances, N hypotheses, T encoder frames, J size of the joint network, H
size of the prediction network, Y its layers, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.inference.export.graphs import SpeechGraph
from espnet_cif_hkd.inference.export.onnx_files import Graph


class TransducerEncoderGraph(SpeechGraph):
    """From samples or features to frames for the joint network, and CTC.

    Args:
        model: Result of :func:`traceable`.
        features: Computes features from samples; None: the input is features.
    """

    def __init__(self, model: Any, features: torch.nn.Module | None) -> None:
        super().__init__(model, features)
        self.project = model.joint_network.lin_enc

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs."""
        return "frame_lengths", "projected", "ctc"

    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Encode utterances.

        Args:
            speech: Samples ``(B, S)`` or features ``(B, F, C)``.
            lengths: Number of valid ones, ``(B,)`` int64.

        Returns:
            Numbers of frames ``(B,)``; frames ``(B, T, J)``; CTC's log-probabilities
            ``(B, T, V)``.
        """
        hs_pad, hlens = self.encode(speech, lengths)
        return hlens, self.project(hs_pad), self.ctc.log_softmax(hs_pad)


class PredictGraph(torch.nn.Module):
    """One step of the prediction network.

    Args:
        model: Result of :func:`traceable`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embed, self.layers = model.decoder.embed, model.decoder.decoder
        self.project = model.joint_network.lin_dec

    def forward(self, tokens: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Read a token of each hypothesis.

        Args:
            tokens: ``(N,)`` int64.
            states: Hidden and, of an LSTM, cell states, ``(Y, N, H)``; zeros before the
                first token, which is the blank.

        Returns:
            Output ``(N, J)`` and the next states.
        """
        output, after = self.embed(tokens[:, None]), []
        for place, layer in enumerate(self.layers):
            before = tuple(one[place : place + 1] for one in states)
            output, state = layer(output, before if len(before) > 1 else before[0])
            after.append(state if isinstance(state, tuple) else (state,))
        return self.project(output[:, 0]), *map(torch.cat, zip(*after, strict=True))


class JointGraph(torch.nn.Module):
    """The joint network.

    Args:
        model: Result of :func:`traceable`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.joint = model.joint_network

    def forward(self, frames: Tensor, predicted: Tensor) -> Tensor:
        """Log-probabilities ``(N, V)`` for ``frames`` and ``predicted (N, J)``."""
        logits: Tensor = self.joint(frames, predicted, no_projection=True)
        return logits.log_softmax(dim=-1)


def transducer_graphs(model: Any) -> list[Graph]:
    """The graphs ``predict`` and ``joint``."""
    decoder = model.decoder
    names = ["state_hidden"] + ["state_cell"] * (decoder.dtype == "lstm")
    random = torch.Generator().manual_seed(1)
    states = {
        name: torch.randn(decoder.dlayers, 2, decoder.dunits, generator=random)
        for name in names
    }
    tokens = {"tokens": torch.tensor([1, 2])}
    axes = {"tokens": {0: "N"}, "predicted": {0: "N"}}
    axes |= {name: {1: "N"} for name in (*names, *(f"next_{one}" for one in names))}
    size = model.joint_network.lin_dec.out_features
    both = {
        name: torch.randn(2, size, generator=random) for name in ("frames", "predicted")
    }
    return [
        Graph(
            "predict",
            PredictGraph(model).eval(),
            tokens | states,
            ["predicted", *(f"next_{name}" for name in names)],
            axes,
        ),
        Graph(
            "joint",
            JointGraph(model).eval(),
            both,
            ["logp"],
            {name: {0: "N"} for name in (*both, "logp")},
        ),
    ]
