"""A training of seconds with ESPnet's ``asr_train``: features, texts, configuration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tiny_bert import HIDDEN, build_tiny_bert
from tiny_model import FEATURES, TOKENS

CONFIG: dict[str, Any] = {
    "batch_type": "unsorted",
    "batch_size": 4,
    "max_epoch": 2,
    "optim": "adam",
    "optim_conf": {"lr": 0.01},
    "num_workers": 0,
    "num_att_plot": 1,
    "use_matplotlib": False,
    "use_tensorboard": False,
    "keep_nbest_models": 1,
    "token_type": "char",
    "input_size": FEATURES,
    "frontend": None,
    "specaug": None,
    "normalize": None,
    "encoder": "transformer",
    "encoder_conf": {
        "input_layer": "linear",
        "output_size": 8,
        "attention_heads": 2,
        "linear_units": 16,
        "num_blocks": 1,
    },
    "decoder": "cif",
    "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
    "model": "cif",
}


def write_data(folder: Path, name: str, n_utterances: int, seed: int) -> None:
    """Write random features and texts with their tables."""
    numbers = np.random.default_rng(seed)
    lines: dict[str, list[str]] = {"speech": [], "text": [], "shape": []}
    for n in range(n_utterances):
        utterance = f"{name}{n}"
        length = int(numbers.integers(16, 30))
        features = numbers.standard_normal((length, FEATURES)).astype(np.float32)
        np.save(folder / f"{utterance}.npy", features)
        letters = numbers.choice(TOKENS[3:-1], size=int(numbers.integers(2, 6)))
        lines["speech"].append(f"{utterance} {folder}/{utterance}.npy\n")
        lines["text"].append(f"{utterance} {''.join(letters)}\n")
        lines["shape"].append(f"{utterance} {length},{FEATURES}\n")
    for kind, text in lines.items():
        (folder / f"{name}.{kind}").write_text("".join(text))


def write_training(folder: Path, **criterion: object) -> dict[str, Any]:
    """Write 9 and 5 utterances, the configuration and a tiny BERT as its teacher.

    Returns:
        The configuration, which is in ``train.yaml``.
    """
    write_data(folder, "train", 9, 0)
    write_data(folder, "valid", 5, 1)
    (folder / "tokens.txt").write_text("\n".join(TOKENS) + "\n")
    conf: Mapping[str, object] = {
        "teacher": build_tiny_bert(folder / "bert"),
        "teacher_dim": HIDDEN,
        "acoustic": {"num_negatives": 5, "share_negatives": True},
        **criterion,
    }
    config = CONFIG | {"model_conf": {"criterion": "hkd", "criterion_conf": conf}}
    (folder / "train.yaml").write_text(yaml.safe_dump(config))
    return config


def training_words(train: str = "") -> Sequence[str]:
    """Options of ``asr_train`` in the folder of :func:`write_training`.

    Args:
        train: Folder with the training tables in shards; the default has all in one.
    """
    words = ["--config", "train.yaml", "--token_list", "tokens.txt"]
    words += ["--output_dir", "exp"]
    for kind in ("train", "valid"):
        place = train if kind == "train" else ""
        option = f"--{kind}_data_path_and_name_and_type"
        words += [option, f"{place}{kind}.speech,speech,npy"]
        words += [option, f"{place}{kind}.text,text,text"]
        words += [f"--{kind}_shape_file", f"{place}{kind}.shape"]
    return words
