"""What silence at both ends of an utterance does to a trained model.

    cd egs2/hsk/asr_hkd
    python3 ../../../benchmarks/silent_ends.py exp/asr_… --data data/test

``background``: noise as loud as the quietest 5 % of the recording; ``zeros``: digital
silence. A model that was trained on sentences without silence at their ends cannot know
what it is. CER of characters without spaces, greedy.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from measure import describe, table
from quality import Errors, load, opened

SECONDS = (0.0, 0.1, 0.2, 0.5, 1.0)
WINDOW = 0.025  # seconds


def background(samples: np.ndarray, rate: int) -> float:
    """Effective value of the quietest 5 % of windows."""
    size = round(WINDOW * rate)
    windows = samples[: len(samples) // size * size].reshape(-1, size)
    return float(np.percentile(np.sqrt((windows**2).mean(1)), 5))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("dump/raw/test"))
    parser.add_argument("--utterances", type=int, help="all by default")
    parser.add_argument("--beam_size", type=int, help="default: greedy")
    args = parser.parse_args()
    print(describe("espnet", threads=torch.get_num_threads()) + "\n", flush=True)
    recognizer = opened(args.model, args.beam_size)
    rate, rng = recognizer.sampling_rate, np.random.default_rng(0)
    spoken = load(args.data, rate, args.utterances)
    texts = [one.text for one in spoken]
    rows, plain = [], None
    for seconds in SECONDS:
        row: list[object] = [f"{seconds:g} s"]
        for is_noise in (True, False):
            found = []
            for one in spoken:
                level = background(one.samples, rate) * is_noise
                ends = rng.normal(0, 1, (2, round(seconds * rate))) * level
                wave = np.concatenate([ends[0], one.samples, ends[1]])
                found.append(recognizer.recognise(wave.astype(np.float32)).text)
            errors = Errors(texts, found)
            plain = plain or errors
            row += [f"{errors.rate:.2f}", errors.minus(plain)]
        rows.append(row)
    head = ["at each end", "background: CER, %", "difference", "zeros: CER, %"]
    print(table([*head, "difference"], rows))


if __name__ == "__main__":
    main()
