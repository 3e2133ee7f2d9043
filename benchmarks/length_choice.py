"""Error rates and time of a search that chooses the number of tokens (``length_conf``).

Run it in the folder of the recipe::

    python3 ../../../benchmarks/length_choice.py exp/asr_x dump/raw/dev dump/raw/test

Prints, for each number of tokens that is tried on both sides, and for the mean of the
log-probabilities and each bonus, character and word error rate, and the time of the
search in relation to that without the choice. Utterances are searched one by one.
"""

import argparse
import time
from pathlib import Path

import torch
from quality import Errors, encoded

from espnet_cif_hkd.inference.recognizer import Recognizer
from espnet_cif_hkd.search.lengths import LengthSearch, choosing


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of the model, or a checkpoint in it")
    parser.add_argument("data", type=Path, nargs="+", help="folders of data")
    parser.add_argument("--slack", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--bonus", type=float, nargs="+", default=[0.0, 0.2, 0.4])
    args = parser.parse_args()
    torch.set_num_threads(1)
    recognizer = Recognizer(args.model)
    speech2text = recognizer.speech2text
    choices = {"none": None} | {
        f"{slack}, {'mean' if bonus is None else bonus}": LengthSearch(slack, bonus)
        for slack in args.slack
        for bonus in (None, *args.bonus)
    }
    for folder in args.data:
        frames, known = encoded(recognizer, folder)
        usual = 0.0
        for name, choice in choices.items():
            start = time.process_time()
            with choosing(speech2text.asr_model.decoder, choice):
                found = [speech2text.search([one])[0][0][0] for one in frames]
            seconds = time.process_time() - start
            usual = usual or seconds
            rates = [Errors(known, found, words).rate for words in (False, True)]
            print(
                f"{folder.name}: slack and bonus {name}: CER without spaces "
                f"{rates[0]:.1f}, WER {rates[1]:.1f}, time {seconds / usual:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
