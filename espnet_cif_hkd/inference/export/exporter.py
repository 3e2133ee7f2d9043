"""Export a trained model: graphs, tokens and metadata in one folder."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from espnet_cif_hkd import __version__
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
from espnet_cif_hkd.decoder.cif_whisper import CIFWhisperDecoder
from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.encoder.frames import fewest_frames
from espnet_cif_hkd.encoder.geometry import encoder_windows, known_frame_times
from espnet_cif_hkd.encoder.speech_teacher import SpeechTeacherFrontend
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference import onnx_folder
from espnet_cif_hkd.inference.calibration import Calibration
from espnet_cif_hkd.inference.export.frontend import GraphFeatures, feature_spec
from espnet_cif_hkd.inference.export.graphs import (
    EncoderGraph,
    FireGraph,
    OnePassGraph,
    SpeechGraph,
    StepGraph,
    traceable,
)
from espnet_cif_hkd.inference.export.onnx_files import (
    Graph,
    quantize,
    require_onnx,
    write_graph,
)
from espnet_cif_hkd.inference.export.streaming_graphs import (
    streaming_graphs,
    streaming_metadata,
)
from espnet_cif_hkd.inference.export.transducer_graphs import (
    TransducerEncoderGraph,
    transducer_graphs,
)
from espnet_cif_hkd.inference.export.whisper import GraphWhisper
from espnet_cif_hkd.inference.export.whisper_decoder import whisper_decoder_graphs
from espnet_cif_hkd.inference.features import FeatureStream
from espnet_cif_hkd.inference.onnx_folder import NEAR
from espnet_cif_hkd.inference.stream import check_model as check_streaming
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.io.features import FeatureSpec

# Seconds of the recordings that are traced.
_TRACED = (1.5, 1.1)


@dataclass(frozen=True)
class Source:
    """A trained model.

    Attributes:
        model: An ESPnet ASR model.
        token_type: Of its configuration, such as ``char``.
        calibration: Of the model.
    """

    model: Any
    token_type: str
    calibration: Calibration


def export_model(
    source: Source,
    folder: Path,
    int8: bool = False,
    with_frontend: bool = True,
    streaming: bool = False,
) -> dict[str, Any]:
    """Write all files of an exported model.

    Args:
        source: The model.
        folder: For the files; made if necessary.
        int8: Whether to write graphs with weights of 8 bits, too.
        with_frontend: Whether the encoder's graph reads samples; otherwise it reads
            features, which the runner computes in numpy.
        streaming: Whether the encoder's graph reads one chunk after the other.

    Returns:
        The metadata.

    Raises:
        UserError: The model cannot be exported; the message has the part.
    """
    require_onnx()
    started = time.monotonic()
    model = source.model
    if streaming:
        _check_streaming(model)
    check_model(model)
    if source.token_type == "hugging_face" and any(
        token.startswith(("Ġ", "▁")) for token in model.token_list
    ):
        raise UserError(
            "export needs WordPieces for token_type hugging_face: the text of this "
            "token list, whose words begin with Ġ or ▁, needs the tokenizer"
        )
    whisper = None
    if isinstance(model.frontend, SpeechTeacherFrontend):
        whisper = GraphWhisper(model.frontend)
        if not with_frontend:
            raise UserError("frontend: speech_teacher has no --no-frontend")
    spec = feature_spec(model.frontend) if whisper is None else whisper.spec
    if streaming and spec.joins:
        raise UserError(
            "--streaming: a graph of chunks joins no feature frames; train a model "
            "with frontend_conf: {stack: 1, skip: 1}"
        )
    rate = spec.rate if whisper is None else whisper.sampling_rate
    times = known_frame_times(model, rate)
    windows = encoder_windows(model.encoder)
    if times is None or windows is None:
        raise UserError(
            f"the sub-sampling of {type(model.encoder).__name__} is unknown, so that "
            "an exported model would have no times; use cif_conformer or a conformer "
            "of ESPnet"
        )
    fewest = fewest_frames(windows)
    traced = traceable(model)
    metadata: dict[str, Any] = {
        "format": onnx_folder.FORMAT,
        "package": f"espnet-cif-hkd {__version__}",
        "sampling_rate": rate,
        "input": "samples" if with_frontend else "features",
        "fewest_samples": _fewest_samples(spec, fewest)
        if whisper is None
        else math.ceil(whisper.fewest_samples(fewest) * rate / spec.rate),
        "offset": times.offset,
        "stride": times.stride,
        "batches": isinstance(model.encoder, CIFConformerEncoder) and whisper is None,
        "vocab_size": len(model.token_list),
        "token_type": source.token_type,
        "calibration": asdict(source.calibration),
    }
    features = GraphFeatures(spec) if whisper is None else whisper
    if whisper is not None:
        metadata["longest_samples"] = whisper.longest * rate // spec.rate
        metadata["graph_rate"] = spec.rate
    if streaming:
        graphs = streaming_graphs(traced, spec)
        timing = source.calibration.timing.of_stream(model.ctc is not None)
        metadata["streaming"] = streaming_metadata(model, spec, timing)
    else:
        encoder = (TransducerEncoderGraph if _is_transducer(model) else EncoderGraph)(
            traced, features if with_frontend else None
        )
        graphs = [_encoder_graph(encoder, features)]
        choice = getattr(model.decoder, "length_search", None)
        if choice is not None:
            metadata["choice"] = asdict(choice)
            graphs.append(_fire_graph(FireGraph(traced).eval(), model.decoder))
    if _is_transducer(model):
        graphs += transducer_graphs(traced)
        metadata |= {"decoders": ["transducer"], "blank": int(model.decoder.blank_id)}
    elif isinstance(model.decoder, CIFWhisperDecoder):
        graphs += whisper_decoder_graphs(traced.decoder)
        metadata |= _ending(model.decoder) | {
            "decoders": ["whisper"],
            "longest_text": model.decoder.max_length,
            "prompt": model.decoder.prompt_length,
        }
    else:
        decoders = _decoder_graphs(traced)[: 1 if streaming else None]
        graphs += decoders
        metadata |= _decoder_metadata(traced, [one.name for one in decoders])
    folder.mkdir(parents=True, exist_ok=True)
    # An interrupted export leaves no folder that looks complete.
    (folder / onnx_folder.METADATA).unlink(missing_ok=True)
    for graph in graphs:
        path = folder / f"{graph.name}.onnx"
        about = {"package": metadata["package"], "graph": graph.name}
        write_graph(graph, path, about)
        if int8:
            quantize(path, folder / f"{graph.name}.int8.onnx")
    if not with_frontend:
        spec.save(folder / onnx_folder.FEATURES)
    write_tokens(folder / onnx_folder.TOKENS, model.token_list)
    metadata["seconds"] = round(time.monotonic() - started, 1)
    write_text(
        folder / onnx_folder.METADATA,
        json.dumps(metadata, indent=1, ensure_ascii=False) + "\n",
    )
    return metadata


def write_tokens(path: Path, tokens: Sequence[str]) -> None:
    """Write ``SYMBOL ID`` lines.

    Raises:
        UserError: A symbol has a line break.
    """
    for index, token in enumerate(tokens):
        if "\n" in token or "\r" in token:
            raise UserError(f"token {index} ({token!r}) has a line break")
    lines = [f"{token} {index}\n" for index, token in enumerate(tokens)]
    write_text(path, "".join(lines))


def check_model(model: Any) -> None:
    """Check that graphs can have the parts of a model.

    Raises:
        UserError: They cannot.
    """
    if _is_transducer(model):
        if model.ctc is None:
            raise UserError(
                "a transducer without CTC knows no times: train a model with "
                "model_conf: ctc_weight above 0 to export it"
            )
    elif not isinstance(model.decoder, CIFDecoder):
        raise UserError(
            "export needs 'decoder: cif', 'cif_nar', 'cif_whisper' or 'transducer', "
            f"this model has {type(model.decoder).__name__}"
        )
    if model.frontend is None:
        raise UserError(
            "this model reads features from files: export needs a model with a frontend"
        )
    if model.postencoder is not None:
        raise UserError(
            f"postencoder {type(model.postencoder).__name__} cannot be exported"
        )


def _check_streaming(model: Any) -> None:
    decoder = model.decoder
    if not (isinstance(decoder, CIFDecoder) and decoder.streams):
        raise UserError(
            f"--streaming needs 'decoder: cif', this model has {type(decoder).__name__}"
        )
    check_streaming(model)
    FeatureStream(model.frontend)


def _is_transducer(model: Any) -> bool:
    return type(model.decoder).__name__ == "TransducerDecoder"


def _one_pass_of(model: Any) -> CIFNARDecoder | None:
    if isinstance(model.decoder, CIFNARDecoder):
        return model.decoder
    nar: CIFNARDecoder | None = getattr(model, "nar", None)
    return nar


def _fewest_samples(spec: FeatureSpec, n_frames: int) -> int:
    """Fewest samples from which the encoder makes a frame."""
    n_samples = max(1, spec.pad + 1)
    while spec.n_frames(n_samples) < n_frames:
        n_samples += 1
    return n_samples


def _encoder_graph(
    encoder: SpeechGraph, features: GraphFeatures | GraphWhisper
) -> Graph:
    random = torch.Generator().manual_seed(0)
    rate = features.spec.rate
    lengths = torch.tensor([int(seconds * rate) for seconds in _TRACED])
    speech = torch.randn(2, int(lengths.max()), generator=random) * 0.1
    if encoder.features is None:
        with torch.no_grad():
            speech, lengths = features(speech, lengths)
    time_axis = "features" if encoder.features is None else "samples"
    axes = {"speech": {0: "B", 1: time_axis}, "lengths": {0: "B"}}
    for name in encoder.outputs:
        axes[name] = {0: "B"} if name.endswith("lengths") else {0: "B", 1: "L"}
        if name in ("alpha", "ctc", "frames", "projected"):
            axes[name] = {0: "B", 1: "T"}
        if name.startswith("other_"):
            axes[name] = {0: "B", 2: "T"} if name.endswith("weights") else {0: "B"}
    inputs = {"speech": speech, "lengths": lengths}
    return Graph("encoder", encoder.eval(), inputs, encoder.outputs, axes)


def _fire_graph(module: FireGraph, decoder: CIFDecoder) -> Graph:
    random = torch.Generator().manual_seed(0)
    inputs = {
        "frames": torch.randn(2, 9, decoder.fired_size, generator=random),
        "frame_lengths": torch.tensor([9, 7]),
        "weights": torch.full((2, 9), 0.5, dtype=torch.float64),
    }
    axes = {name: {0: "B", 1: "T"} for name in inputs}
    axes |= {name: {0: "B", 1: "L"} for name in module.outputs}
    axes |= {name: {0: "B"} for name in ("frame_lengths", "token_lengths")}
    return Graph("fire", module, inputs, module.outputs, axes)


def _decoder_graphs(model: Any) -> list[Graph]:
    decoder, nar = model.decoder, _one_pass_of(model)
    size, graphs = decoder.output_layer.in_features, []
    if not isinstance(decoder, CIFNARDecoder):
        graphs.append(_step_graph(decoder, size))
    if nar is not None:
        fired = torch.randn(2, 5, size, generator=torch.Generator().manual_seed(0))
        inputs = {"fired": fired, "token_lengths": torch.tensor([5, 3])}
        inputs |= _near(nar, (2, 5))
        axes = {name: {0: "B", 1: "L"} for name in inputs}
        axes["token_lengths"] = {0: "B"}
        axes["logp"] = {0: "B", 1: "L"}
        module = OnePassGraph(nar).eval()
        graphs.append(Graph("one_pass", module, inputs, ["logp"], axes))
    return graphs


def _decoder_metadata(model: Any, names: list[str]) -> dict[str, Any]:
    decoder, nar = model.decoder, _one_pass_of(model)
    return {
        "decoders": names,
        "layers": len(decoder.layers),
        "step_near": decoder.frame_attention is not None,
        "one_pass_near": nar is not None and nar.frame_attention is not None,
        **_ending(decoder),
    }


def _ending(decoder: CIFDecoder) -> dict[str, Any]:
    return {"eos": int(decoder.eos), "eos_slack": int(decoder.eos_slack)}


def _step_graph(decoder: CIFDecoder, size: int) -> Graph:
    random = torch.Generator().manual_seed(1)
    past = torch.randn(len(decoder.layers), 2, 3, size, generator=random)
    inputs = {
        "tokens": torch.tensor([1, 2]),
        "previous": torch.randn(2, size, generator=random),
        "current": torch.randn(2, size, generator=random),
        "keys": past,
        "values": past.clone(),
        **_near(decoder, (2,)),
    }
    axes: dict[str, dict[int, str]] = {name: {0: "N"} for name in inputs}
    axes |= {name: {1: "N", 2: "P"} for name in ("keys", "values")}
    axes |= {name: {1: "N", 2: "P1"} for name in ("next_keys", "next_values")}
    axes["logp"] = {0: "N"}
    outputs = ["logp", "next_keys", "next_values"]
    return Graph("step", StepGraph(decoder).eval(), inputs, outputs, axes)


def _near(decoder: CIFDecoder, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Examples of the frames around firings."""
    attention = decoder.frame_attention
    if attention is None:
        return {}
    size = decoder.output_layer.in_features
    width = 2 * attention.window + 1
    random = torch.Generator().manual_seed(2)
    examples = [
        torch.randn(*shape, width, size, generator=random),
        torch.randn(*shape, width, size, generator=random),
        torch.ones(*shape, width, dtype=torch.bool),
    ]
    return {f"near_{name}": one for name, one in zip(NEAR, examples, strict=True)}
