#!/usr/bin/env python3
"""Real-time factor of a streaming encoder, chunk by chunk, against the complete pass.

    python3 benchmarks/streaming_encoder.py [--seconds 10] [--device cpu] [--json FILE]

The paper's encoder (15 blocks of 256, features of 10 ms, output frames of 80 ms) with
random weights, one utterance, one thread. Features come in pieces of 100 ms. On a CPU,
times are those of the processor, so that other processes matter less; waiting for audio
is not counted. ``piece`` is the median of the calls that encode a chunk.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from measure import (
    add_options,
    describe,
    device,
    medians,
    on_gpu,
    table,
    use_options,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.encoder.streaming import chunk_span

FEATURES, HOP = 80, 0.01  # mel bands, seconds
PIECE = 10  # features
CHUNKS = {320: 4, 640: 8, 1280: 16}  # milliseconds: output frames of 80 ms
_ROUNDS = 3


def now() -> float:
    """Seconds: of this process on a CPU, of the clock on a GPU."""
    if not on_gpu():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def stream(encoder: CIFConformerEncoder, speech: torch.Tensor) -> list[float]:
    """Encode in pieces; seconds of the calls that encode a chunk."""
    cache, seconds = None, []
    for begin in range(0, speech.size(1), PIECE):
        start = now()
        piece = speech[:, begin : begin + PIECE]
        last = begin + PIECE >= speech.size(1)
        hs_pad, _, cache = encoder.forward_chunk(piece, cache, last=last)
        if hs_pad.size(1) > 0:
            seconds.append(now() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10, help="of the utterance")
    add_options(parser)
    args = parser.parse_args()
    figures, duration = use_options(args), args.seconds
    print(describe(threads=1))
    print(f"{duration} s of features, one utterance\n")
    torch.manual_seed(0)
    encoder = CIFConformerEncoder(FEATURES).to(device()).eval()
    speech = torch.randn(1, round(duration / HOP), FEATURES, device=device())
    lengths = torch.tensor([speech.size(1)], device=device())
    calls: dict[int, list[float]] = {ms: [] for ms in CHUNKS}
    runs: dict[str, list[float]] = {}
    with torch.no_grad():
        for _ in range(_ROUNDS):
            for ms, size in {0: 0, **CHUNKS}.items():
                encoder.decoding_chunk_size = size
                start = now()
                encoder(speech, lengths)
                runs.setdefault(f"complete {ms}", []).append(now() - start)
                if ms == 0:
                    continue
                start = now()
                calls[ms] += stream(encoder, speech)
                runs.setdefault(f"pieces {ms}", []).append(now() - start)
    factors = {name: median / duration for name, median in medians(runs).items()}
    full = factors["complete 0"]
    rows: list[list[object]] = [["full context", None, full, None, None, None]]
    for ms, size in CHUNKS.items():
        streamed = factors[f"pieces {ms}"]
        figures.add(f"streaming_encoder.{ms}ms", streamed, "RTF")
        _, needed = chunk_span(encoder, size)
        rows.append(
            [
                f"{ms} ms",
                f"{needed * HOP:.2f} s",
                factors[f"complete {ms}"],
                streamed,
                1000 * statistics.median(calls[ms]),
                streamed / full,
            ]
        )
    head = ["chunk", "audio for a chunk", "complete pass, RTF", "pieces, RTF"]
    print(table([*head, "piece, ms", "pieces / full context"], rows))


if __name__ == "__main__":
    main()
