"""Error rates and time of a search that chooses the number of tokens (``length_conf``).

Run it in the folder of the recipe::

    python3 ../../../benchmarks/length_choice.py exp/asr_x dump/raw/dev dump/raw/test

Prints, for each number of tokens that is tried on both sides, and for the mean of the
log-probabilities and each bonus, character and word error rate, and the time of the
search in relation to that without the choice.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import editdistance
import soundfile
import torch

from espnet_cif_hkd.plugin import register
from espnet_cif_hkd.search.greedy import GreedyHypothesis, greedy_search
from espnet_cif_hkd.search.lengths import LengthSearch

register()

from espnet2.tasks.asr import ASRTask  # noqa: E402
from espnet2.text.build_tokenizer import build_tokenizer  # noqa: E402


def encoded(model: Any, folder: Path) -> list[tuple[str, torch.Tensor]]:
    """Transcripts and encoder frames ``(1, T, D)`` of a data folder."""
    lines = (folder / "text").read_text(encoding="utf-8").splitlines()
    texts = dict(line.split(maxsplit=1) for line in lines if " " in line)
    found = []
    for line in (folder / "wav.scp").read_text(encoding="utf-8").splitlines():
        name, path = line.split(maxsplit=1)
        if name in texts:
            wave = torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]
            frames, lengths = model.frontend(wave, torch.tensor([wave.size(1)]))
            if model.normalize is not None:
                frames, lengths = model.normalize(frames, lengths)
            hs_pad = model.encoder(frames, lengths)[0]
            found.append((texts[name], hs_pad))
    return found


def rate(known: list[list[str]], found: list[list[str]]) -> float:
    """Errors in per cent of the tokens of the references."""
    errors = sum(editdistance.eval(a, b) for a, b in zip(known, found, strict=True))
    return 100.0 * errors / sum(map(len, known))


@torch.no_grad()
def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exp", type=Path, help="folder of the model")
    parser.add_argument("data", type=Path, nargs="+", help="folders of data")
    parser.add_argument("--model", default="valid.acc.ave.pth", help="parameters")
    parser.add_argument("--slack", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--bonus", type=float, nargs="+", default=[0.0, 0.2, 0.4])
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, conf = ASRTask.build_model_from_file(
        args.exp / "config.yaml", args.exp / args.model, "cpu"
    )
    model.eval()
    tokenizer = build_tokenizer(conf.token_type, conf.bpemodel)

    def text(found: GreedyHypothesis) -> str:
        return str(
            tokenizer.tokens2text([model.token_list[n] for n in found.yseq[1:-1]])
        )

    choices: list[LengthSearch | None] = [None]
    choices += [
        LengthSearch(slack, bonus)
        for slack in args.slack
        for bonus in (None, *args.bonus)
    ]
    for folder in args.data:
        utterances = encoded(model, folder)
        usual = 0.0
        for choice in choices:
            model.decoder.length_search = choice
            start, texts = time.process_time(), []
            for _, hs_pad in utterances:
                lengths = torch.tensor([hs_pad.size(1)])
                texts.append(text(greedy_search(model.decoder, hs_pad, lengths)[0]))
            seconds = time.process_time() - start
            usual = usual or seconds
            known = [one for one, _ in utterances]
            letters = rate(list(map(list, known)), list(map(list, texts)))
            words = rate([one.split() for one in known], [one.split() for one in texts])
            name = "none"
            if choice is not None:
                by = "mean" if choice.bonus is None else choice.bonus
                name = f"{choice.slack}, {by}"
            print(
                f"{folder.name}: slack and bonus {name}: CER {letters:.1f}, "
                f"WER {words:.1f}, time {seconds / usual:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
