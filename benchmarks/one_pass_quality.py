"""Errors and speed of the one-pass decoder beside the autoregressive one.

    cd egs2/hsk/asr_hkd
    python3 ../../../benchmarks/one_pass_quality.py exp/asr_one_pass \\
        --dev data/dev --data data/test

The model has ``decoder: cif`` and ``model_conf.nar_conf``. ``fallback``: utterances
whose least probable token is below a threshold are decoded by ``decoder: cif``; the
threshold is the quantile of ``--fallback`` on ``--dev``. Error rates are of characters
without spaces; the difference to the autoregressive search has a paired interval of
95 %.
``search`` is the time of the search of batches of ``--batch`` from encoder frames,
median of three rounds in turns.
"""

import argparse
import functools
from pathlib import Path

import numpy as np
import torch
from measure import describe, in_turns, medians, table
from quality import Errors, Frames, encoded

from espnet_cif_hkd.inference.recognizer import Recognizer


def decode(
    recognizer: Recognizer, frames: Frames, way: tuple[bool, float], batch: int = 16
) -> list[tuple[str, float]]:
    """Text, and probability of the least probable token, of each utterance.

    ``way``: whether to use the one-pass decoder, and below which probability not.
    """
    search = recognizer.speech2text
    search.one_pass, search.fallback_below = way
    found = []
    for n in range(0, len(frames), batch):
        for nbest in search.search(frames[n : n + batch]):
            text, _, _, hypothesis = nbest[0]
            logp = hypothesis.states["logp"]
            found.append((text, float(logp.min().exp()) if len(logp) else 0.0))
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--dev", type=Path, default=Path("data/dev"))
    parser.add_argument("--data", type=Path, default=Path("data/test"))
    parser.add_argument("--utterances", type=int, help="of each set; all by default")
    parser.add_argument("--fallback", type=float, default=0.2)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    print(describe("espnet", threads=torch.get_num_threads()) + "\n")
    recognizer = Recognizer(args.model, one_pass=True)
    frames, _ = encoded(recognizer, args.dev, args.utterances)
    least = [one[1] for one in decode(recognizer, frames, (True, 0.0))]
    threshold = float(np.quantile(least, args.fallback))
    frames, texts = encoded(recognizer, args.data, args.utterances)
    ways = {
        "autoregressive, greedy": (False, 0.0),
        "one pass": (True, 0.0),
        f"one pass, fallback below {threshold:.3f}": (True, threshold),
    }
    found = {name: decode(recognizer, frames, way) for name, way in ways.items()}
    errors = {
        name: Errors(texts, [text for text, _ in one]) for name, one in found.items()
    }
    first = next(iter(ways))
    back = 100 * np.mean([one[1] < threshold for one in found["one pass"]])
    search = {
        name: functools.partial(
            decode, recognizer, sorted(frames, key=len), way, args.batch
        )
        for name, way in ways.items()
    }
    seconds = medians(in_turns(search, 3))
    rows = [
        [
            name,
            f"{errors[name].rate:.2f}",
            "" if name == first else errors[name].minus(errors[first]),
            f"{back:.1f}" if ways[name][1] else "",
            f"{seconds[name]:.2f}",
            f"{seconds[first] / seconds[name]:.1f}",
        ]
        for name in ways
    ]
    n_tokens = errors[first].n_tokens.sum()
    print(f"{args.data}: {len(texts)} utterances, {n_tokens} characters\n")
    head = ["", "CER, %", "difference", "fallback, %", "search, s", "times faster"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
