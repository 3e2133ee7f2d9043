"""What times and confidences cost, as a share of decoding without them.

    cd egs2/hsk/asr_hkd
    python3 ../../../benchmarks/times_cost.py exp/asr_… --data data/test

They must cost at most 3 %. Times are those of the process with one thread, greedy
search unless ``--beam_size`` is given, one utterance at a time.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import describe
from quality import load, opened

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from espnet_cif_hkd.inference.recognizer import Recognizer  # noqa: E402
from espnet_cif_hkd.inference.results import Found  # noqa: E402


def cost(recognizer: Recognizer, waves: Sequence[np.ndarray], repeats: int) -> str:
    """Decode utterances ``(S,)`` and make their results; says what each took."""
    taken = {"decoding": 0.0, "times": 0.0}
    for samples in list(waves) * repeats:
        wave = torch.from_numpy(samples)
        start = time.process_time()
        [hidden] = recognizer.speech2text.encode([wave])
        [nbest] = recognizer.speech2text.search([hidden])
        middle = time.process_time()
        found = [
            Found(ids, tokens, text, None, _scores(hypothesis))
            for text, tokens, ids, hypothesis in nbest
        ]
        results = recognizer.results
        results.recognition(results.frames(hidden, wave), found)
        taken["decoding"] += middle - start
        taken["times"] += time.process_time() - middle
    share = 100 * taken["times"] / taken["decoding"]
    n_runs = len(waves) * repeats
    each = ", ".join(f"{name} {1e3 * s / n_runs:.1f} ms" for name, s in taken.items())
    return f"times and confidences cost {share:.2f} % of decoding ({each} an utterance)"


def _scores(hypothesis: Any) -> np.ndarray | None:
    """The decoder's scores, if the search was greedy."""
    known = hypothesis.states
    return known["logp"].numpy() if "logp" in known else None


def main() -> None:
    """Print the cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("dump/raw/test"))
    parser.add_argument("--utterances", type=int, default=20)
    parser.add_argument("--beam_size", type=int, help="default: greedy")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    torch.set_num_threads(1)
    print(describe("espnet", threads=1) + "\n", flush=True)
    recognizer = opened(args.model, args.beam_size)
    spoken = load(args.data, recognizer.sampling_rate, args.utterances)
    print(cost(recognizer, [one.samples for one in spoken], args.repeats))


if __name__ == "__main__":
    main()
