"""Compare an exported model with the model that it was made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
from espnet_cif_hkd.decoder.cif_whisper import CIFWhisperDecoder
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.calibration import Calibration
from espnet_cif_hkd.inference.onnx_folder import NEAR, Array, Arrays, read_metadata
from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer
from espnet_cif_hkd.inference.results import ResultMaker
from espnet_cif_hkd.inference.stream import RecognitionStream
from espnet_cif_hkd.search.greedy import greedy_search
from espnet_cif_hkd.search.nar import one_pass_search
from espnet_cif_hkd.search.transducer_greedy import (
    predicted_step,
    transducer_greedy_search,
)

LIMIT = 1e-4
_SECONDS = (0.9, 1.7, 2.6)
# Tokens that are fired for the decoders, whatever the model would fire.
_KNOWN = 7


@dataclass
class Comparison:
    """Differences between the graphs and the model.

    Attributes:
        deviation: Largest difference of a log-probability, by part: below -1 in
            relation to its size, because rounding grows with it.
        n_recordings: Number of recordings.
        n_tokens: Tokens that the model found in them.
        different: Recordings in which the exported model found other tokens.
    """

    deviation: dict[str, float] = field(default_factory=dict)
    n_recordings: int = 0
    n_tokens: int = 0
    different: list[int] = field(default_factory=list)

    @property
    def worst(self) -> float:
        """The largest difference."""
        return max(self.deviation.values(), default=0.0)

    def note(self, part: str, ours: Array, theirs: Tensor) -> None:
        """Enter the difference of two arrays of the same shape."""
        found = theirs.detach().float().cpu().numpy()
        if ours.shape != found.shape:
            self.deviation[part] = float("inf")
        elif found.size:
            gap = float((np.abs(ours - found) / np.maximum(1, np.abs(found))).max())
            gap = gap if np.isfinite(gap) else float("inf")
            self.deviation[part] = max(self.deviation.get(part, 0.0), gap)

    def require(self, limit: float = LIMIT) -> None:
        """Check the differences.

        Raises:
            UserError: One is too large, tokens differ, or nothing was compared.
        """
        if not self.n_recordings:
            raise UserError(
                "self-check: all recordings are too short for the model: give others "
                "with --check, or leave it out"
            )
        for part, gap in self.deviation.items():
            if not gap <= limit:
                raise UserError(
                    f"self-check: {part} of the exported model differs by {gap:.2g} "
                    f"from the model (more than {limit:g}): do not use it, and report "
                    "the versions of torch and onnxruntime"
                )
        if self.different:
            raise UserError(
                f"self-check: the exported model finds other tokens in recording "
                f"{self.different[0]} of {self.n_recordings} than the model: do not "
                "use it, and report the versions of torch and onnxruntime"
            )


def check_signals(rate: int) -> list[Array]:
    """Noise whose loudness changes, a few seconds of it."""
    random = np.random.default_rng(0)
    signals = []
    for seconds in _SECONDS:
        time = np.arange(int(seconds * rate)) / rate
        loud = 10.0 ** (-1 - 2 * np.sin(9 * time) ** 2)
        signals.append((random.normal(0, 1, len(time)) * loud).astype(np.float32))
    return signals


@torch.no_grad()
def compare(
    model: Any, folder: Path, recordings: Sequence[Array] | None = None, **options: Any
) -> Comparison:
    """Run the model and its graphs on recordings.

    Args:
        model: The model, in ``eval`` mode on the CPU.
        folder: Of the exported model.
        recordings: Samples, ``(S,)`` each; None: :func:`check_signals`.
        options: Of :class:`OnnxRecognizer`.
    """
    if "streaming" in read_metadata(folder):
        return compare_streams(model, folder, recordings, **options)
    return _compare(model, folder, recordings, **options)


def _compare(
    model: Any, folder: Path, recordings: Sequence[Array] | None, **options: Any
) -> Comparison:
    result = Comparison()
    both = [
        OnnxRecognizer(folder, one_pass=wanted, **options) for wanted in _kinds(model)
    ]
    if recordings is None:
        recordings = check_signals(both[0].sampling_rate)
    fewest = both[0].metadata["fewest_samples"]
    for index, wave in enumerate(recordings):
        if len(wave) < fewest:
            continue
        result.n_recordings += 1
        hs_pad, hlens = _encoded(model, wave)
        encoded = both[0].encode([wave])
        if "alpha" in encoded:
            result.note("alpha", encoded["alpha"], model.decoder.weights(hs_pad, hlens))
        if "ctc" in encoded:
            result.note("CTC", encoded["ctc"], model.ctc.log_softmax(hs_pad))
        for recognizer in both:
            if recognizer.decoder == "transducer":
                _compare_transducer(model, recognizer, hs_pad, encoded, result)
            else:
                _compare_decoder(model, recognizer, hs_pad, hlens, result)
            ids = recognizer.decode(encoded)[0].ids
            expected = _search(model, recognizer.one_pass, hs_pad, hlens)
            result.n_tokens += len(expected)
            if ids != expected and index not in result.different:
                result.different.append(index)
    return result


def _encoded(model: Any, wave: Array) -> tuple[Tensor, Tensor]:
    """Encoder frames ``(1, T, D)`` of the model and their number."""
    samples = torch.from_numpy(np.asarray(wave, np.float32))[None]
    hs_pad, hlens = model.encode(samples, torch.tensor([samples.size(1)]))
    return (hs_pad[0] if isinstance(hs_pad, tuple) else hs_pad), hlens


@torch.no_grad()
def compare_streams(
    model: Any, folder: Path, recordings: Sequence[Array] | None = None, **options: Any
) -> Comparison:
    """Run a stream of the model and one of its graphs on the same pieces.

    Args:
        model: As for :func:`compare`.
        folder: Of a model that was exported with ``--streaming``.
        recordings: Samples, ``(S,)`` each; None: :func:`check_signals` and shorter ones
            than a feature frame and than a chunk.
        options: Of :class:`OnnxRecognizer`.
    """
    recognizer = OnnxRecognizer(folder, **options)
    rate, result = recognizer.sampling_rate, Comparison()
    if recordings is None:
        recordings = check_signals(rate)
        recordings += [recordings[0][:n] for n in (0, 20, rate // 8, rate // 3)]
    results = ResultMaker(model, None, rate, Calibration())
    random = np.random.default_rng(0)
    for index, wave in enumerate(recordings):
        result.n_recordings += 1
        ours = recognizer.stream()
        theirs = RecognitionStream(model, results, list(recognizer.tokens))
        cuts = np.sort(random.integers(0, len(wave) + 1, 5))
        for piece in (*np.split(wave, cuts), None):
            if piece is None:
                found, expected = ours.finish(), theirs.finish()
            else:
                found, expected = ours.accept(piece), theirs.accept(piece)
            if len(ours.alpha):
                assert theirs.firing is not None
                result.note("alpha", ours.alpha, theirs.firing.alpha)
            both = [[one.id for one in each.tokens] for each in (found, expected)]
            if both[0] != both[1] and index not in result.different:
                result.different.append(index)
        result.n_tokens += len(expected.tokens)
        if len(wave) >= recognizer.metadata["fewest_samples"]:
            _compare_decoder(model, recognizer, *_encoded(model, wave), result)
    return result


def _kinds(model: Any) -> list[bool]:
    """Whether one pass, for each decoder of a model."""
    if model.use_transducer_decoder:
        return [False]
    if isinstance(model.decoder, CIFNARDecoder):
        return [True]
    return [False] if getattr(model, "nar", None) is None else [False, True]


def _search(model: Any, one_pass: bool, hs_pad: Tensor, hlens: Tensor) -> list[int]:
    if one_pass and getattr(model, "nar", None) is not None:
        [found] = one_pass_search(model.nar, hs_pad, hlens, firing=model.decoder)
    elif model.use_transducer_decoder:
        parts = model.decoder, model.joint_network
        [found] = transducer_greedy_search(*parts, hs_pad, hlens)
        return found.yseq[1:].tolist()
    else:
        [found] = greedy_search(model.decoder, hs_pad, hlens)
    return [token for token in found.yseq[1:-1].tolist() if token != 0]


def _compare_decoder(
    model: Any,
    recognizer: OnnxRecognizer,
    hs_pad: Tensor,
    hlens: Tensor,
    result: Comparison,
) -> None:
    """Compare log-probabilities after a known text of a known number of tokens."""
    decoder = model.decoder
    if recognizer.one_pass and getattr(model, "nar", None) is not None:
        decoder = model.nar
    lengths = torch.tensor([_KNOWN])
    fired = model.decoder.fire(hs_pad, hlens, lengths)
    near = decoder.near_frames(hs_pad, hlens, fired)
    random = torch.Generator().manual_seed(3)
    tokens = torch.randint(1, len(model.token_list), (1, _KNOWN), generator=random)
    tokens[0, 0] = decoder.sos
    logits, _ = decoder.decode(fired.embeddings, tokens, near)
    expected = logits.log_softmax(dim=-1)
    given = {"fired": fired.embeddings, "token_lengths": lengths}
    if isinstance(decoder, CIFWhisperDecoder):
        frames = {"frames": hs_pad, "frame_lengths": hlens}
        given |= {**frames, "times": fired.firing_times}
    elif near is not None:
        given |= {f"near_{name}": getattr(near, name) for name in NEAR}
    arrays = {name: value.numpy() for name, value in given.items()}
    if recognizer.one_pass:
        logp = recognizer.graphs.run("one_pass", arrays)["logp"]
        result.note("the one-pass decoder", logp, expected)
        return
    steps = recognizer.search.steps(arrays, np.zeros(1, int))
    for step in range(_KNOWN):
        given = {"tokens": tokens[:, step].numpy(), **steps.inputs(step, 1)}
        found = recognizer.graphs.run("step", given)
        result.note("the decoder", found["logp"], expected[:, step])
        steps.keep(found)


def _compare_transducer(
    model: Any,
    recognizer: OnnxRecognizer,
    hs_pad: Tensor,
    encoded: Arrays,
    result: Comparison,
) -> None:
    """Compare log-probabilities after a known text, at the first frames."""
    decoder, joint, run = model.decoder, model.joint_network, recognizer.graphs.run
    random = torch.Generator().manual_seed(3)
    tokens = torch.randint(1, len(model.token_list), (_KNOWN,), generator=random)
    expected = decoder.init_state(1)
    states: Arrays = {
        f"state_{name}": one.numpy()
        for name, one in zip(("hidden", "cell"), expected, strict=True)
        if one is not None
    }
    for step in range(min(_KNOWN, hs_pad.size(1))):
        token = tokens[step : step + 1]
        predicted, expected = predicted_step(decoder, joint, token, expected)
        found = run("predict", {"tokens": token.numpy(), **states})
        states = {name: found[f"next_{name}"] for name in states}
        frames = {"frames": encoded["projected"][:, step]}
        logp = run("joint", {**frames, "predicted": found["predicted"]})["logp"]
        logits = joint(joint.lin_enc(hs_pad[:, step]), predicted, no_projection=True)
        result.note("the joint network", logp, logits.log_softmax(dim=-1))
