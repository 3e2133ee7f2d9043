#!/usr/bin/env python3
"""Real-time factor of a streaming encoder, chunk by chunk, against the complete pass.

    python3 benchmarks/streaming_encoder.py

The paper's encoder (15 blocks of 256, features of 10 ms, output frames of 80 ms) with
random weights, one utterance, one thread. Features come in pieces of 100 ms; the table
has the time of computation only. ``piece`` is the median of the calls that encode a
chunk, with the longest call in brackets.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from measure import add_options, describe, device, in_turns, medians, table, use_options

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.encoder.streaming import chunk_span

FEATURES, HOP = 80, 0.01  # mel bands, seconds
SECONDS = 10
PIECE = 10  # features
CHUNKS = {320: 4, 640: 8, 1280: 16}  # milliseconds: output frames of 80 ms
PAST = 5120  # milliseconds that attention sees in the rows with a limit
_REPEATS = 3


def stream(encoder: CIFConformerEncoder, speech: torch.Tensor) -> list[float]:
    """Encode in pieces; seconds of the calls that encode a chunk."""
    cache, seconds = None, []
    for begin in range(0, speech.size(1), PIECE):
        start = time.perf_counter()
        piece = speech[:, begin : begin + PIECE]
        last = begin + PIECE >= speech.size(1)
        hs_pad, _, cache = encoder.forward_chunk(piece, cache, last=last)
        if hs_pad.size(1) > 0:
            seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    figures = use_options(parser.parse_args())
    print(describe(threads=1))
    print(f"{SECONDS} s of features, one utterance\n")
    torch.manual_seed(0)
    encoder = CIFConformerEncoder(FEATURES).to(device()).eval()
    speech = torch.randn(1, round(SECONDS / HOP), FEATURES, device=device())
    lengths = torch.tensor([speech.size(1)])
    calls: dict[str, list[float]] = {}

    def choose(size: int, left: int) -> None:
        options, encoder.decoding_chunk_size = encoder.chunks, size
        encoder.chunks = type(options)(options.training, left)

    def complete(size: int = 0, left: int = -1) -> None:
        choose(size, left)
        encoder(speech, lengths)

    def pieces(name: str, size: int, left: int) -> None:
        choose(size, left)
        calls.setdefault(name, []).extend(stream(encoder, speech))

    ways = {"complete": complete}
    for ms, size in CHUNKS.items():
        for left in (-1, PAST // ms):
            name = f"{ms} {left}"
            ways[f"masked {name}"] = lambda s=size, n=left: complete(s, n)
            ways[f"pieces {name}"] = lambda m=name, s=size, n=left: pieces(m, s, n)
    with torch.no_grad():
        seconds = medians(in_turns(ways, _REPEATS))
    full = seconds["complete"]
    figures.add("streaming_encoder.complete", full / SECONDS, "RTF")
    rows: list[list[object]] = [
        ["full context", None, None, full / SECONDS, full / SECONDS, None, 1.0]
    ]
    for ms, size in CHUNKS.items():
        for left in (-1, PAST // ms):
            name = f"{ms} {left}"
            streamed = seconds[f"pieces {name}"]
            figures.add(f"streaming_encoder.{ms}ms_{left}", streamed / SECONDS, "RTF")
            runs = [1000 * one for one in calls[name]]
            _, needed = chunk_span(encoder, size)
            rows.append(
                [
                    f"{ms} ms",
                    "all" if left < 0 else f"{PAST / 1000:.2f} s",
                    f"{needed * HOP:.2f} s",
                    seconds[f"masked {name}"] / SECONDS,
                    streamed / SECONDS,
                    f"{statistics.median(runs):.1f} ({max(runs):.1f})",
                    streamed / full,
                ]
            )
    head = ["chunk", "past", "audio for a chunk", "masked pass, RTF"]
    print(table([*head, "pieces, RTF", "piece, ms", "pieces / full context"], rows))


if __name__ == "__main__":
    main()
