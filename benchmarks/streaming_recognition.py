#!/usr/bin/env python3
"""A stream of an hour: real-time factor, time of a chunk, state.

    python3 benchmarks/streaming_recognition.py [--minutes 60] [--onnx] [--json FILE]

FOTAQ's streaming model (chunks of 640 ms, ``left_chunks: 4``) with random weights that
fire about eight tokens a second. Noise comes in pieces of 100 ms, on one thread. Times
are those of the processor: waiting for audio is not counted. ``chunk`` is the median of
the calls that encode one. Passages that have ended are not kept (``keep=False``).
``--onnx`` adds the exported model with the greedy search.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from measure import add_options, describe, table, use_options

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import espnet_cif_hkd
from espnet_cif_hkd.encoder.geometry import algorithmic_latency
from espnet_cif_hkd.inference.calibration import Calibration
from espnet_cif_hkd.inference.export.exporter import Source, export_model
from espnet_cif_hkd.inference.growing_stream import StreamOptions
from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer
from espnet_cif_hkd.inference.results import ResultMaker
from espnet_cif_hkd.inference.stream import RecognitionStream

ROOT = Path(__file__).resolve().parents[1]
CONF = "egs2/fotaq/asr_hkd/conf/train_asr_cif_streaming.yaml"
RATE = 11025
TOKENS = ["<blank>", "<unk>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ' ", "<sos/eos>"]
PIECE = 0.1  # seconds
_ALPHA = -0.75  # logit of a weight: 0.32 a frame of 40 ms, eight tokens a second


class Speller:
    """The part of a tokenizer that results need."""

    tokens2text = "".join


def random_model() -> Any:
    """FOTAQ's streaming model, not trained."""
    from espnet2.tasks.asr import ASRTask

    espnet_cif_hkd.register()
    conf = ASRTask.get_default_config()
    conf.update(yaml.safe_load((ROOT / CONF).read_text(encoding="utf-8")))
    conf.update(token_list=TOKENS, input_size=None, specaug=None, init=None)
    conf["encoder_conf"]["left_chunks"] = 4
    torch.manual_seed(0)
    model = ASRTask.build_model(argparse.Namespace(**conf)).eval()
    model.decoder.predictor.output.weight.data *= 0.1
    model.decoder.predictor.output.bias.data.fill_(_ALPHA)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=60, help="at least 2")
    parser.add_argument("--onnx", action="store_true", help="also the exported model")
    parser.add_argument("--beam", type=int, nargs="+", default=[1, 3])
    add_options(parser)
    args = parser.parse_args()
    figures = use_options(args)
    print(describe("espnet", threads=1))
    model = random_model()
    latency = algorithmic_latency(model, RATE)
    print(f"algorithmic latency {latency:.3f} s, {args.minutes} minutes\n")
    rows: list[list[object]] = []
    for beam in args.beam:
        options = StreamOptions(beam_size=beam, keep=False)
        results = ResultMaker(model, Speller(), RATE, Calibration())
        stream = RecognitionStream(model, results, TOKENS, options)
        measure(stream, f"beam{beam}", args.minutes, figures, rows)
    if args.onnx:
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            source = Source(model, "char", Calibration())
            export_model(source, Path(folder), int8=True, streaming=True)
            spent = time.process_time() - started
            figures.add("streaming_recognition.export", spent, "s")
            print(f"Export with graphs of 8 bits: {spent:.1f} s\n")
            for name, int8 in (("onnx", False), ("onnx.int8", True)):
                recognizer = OnnxRecognizer(folder, int8=int8, threads=1)
                measure(
                    recognizer.stream(keep=False), name, args.minutes, figures, rows
                )
    head = ["", "RTF", "chunk, ms", "largest state, KiB", "tokens"]
    print(table(head, rows))


def measure(
    stream: Any, what: str, count: int, figures: Any, rows: list[list[object]]
) -> None:
    """Run a stream; add its figures and rows."""
    minutes = [run_minute(stream, minute) for minute in range(count)]
    for minute in sorted({0, count - 1}):
        seconds, chunks, state, n_tokens = minutes[minute]
        row = [f"{what}, minute {minute + 1}", seconds / 60]
        rows.append([*row, 1000 * statistics.median(chunks), state, n_tokens])
    name = f"streaming_recognition.{what}"
    total = sum(one[0] for one in minutes) / 60 / len(minutes)
    medians = [statistics.median(one[1]) for one in minutes]
    figures.add(f"{name}.rtf", total, "RTF")
    figures.add(f"{name}.last_to_first", medians[-1] / medians[0], "ratio")
    figures.add(f"{name}.state", max(one[2] for one in minutes), "KiB")


def run_minute(stream: Any, minute: int) -> tuple[float, list[float], float, int]:
    """Seconds, seconds of each chunk, largest state in KiB, and new tokens."""
    generator = torch.Generator().manual_seed(minute)
    noise = torch.randn(60 * RATE, generator=generator) * 0.1
    chunks, largest, ends, begin = [], 0, set(), time.process_time()
    for piece in noise.split(round(PIECE * RATE)):
        before, start = encoder_state(stream), time.process_time()
        result = stream.accept(piece.numpy())
        if encoder_state(stream) is not before:
            chunks.append(time.process_time() - start)
        ends.update(token.end for token in result.tokens)
        largest = max(largest, stream.state_bytes)
    return time.process_time() - begin, chunks, largest / 1024, len(ends)


def encoder_state(stream: Any) -> Any:
    """What a stream replaces when it encodes a chunk."""
    is_torch = isinstance(stream, RecognitionStream)
    return stream._encoder if is_torch else stream._caches


if __name__ == "__main__":
    main()
