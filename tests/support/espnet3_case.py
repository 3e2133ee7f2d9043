"""Recipes of egs3 on the miniature corpora of the recipes in egs2."""

import shutil
import subprocess
import sys
from pathlib import Path

import stock_cases
import yaml
from tiny_bert import HIDDEN

RECIPES = Path(__file__).resolve().parents[2] / "egs3"
STAGES = (
    *("create_dataset", "train_tokenizer", "collect_stats", "train"),
    *("infer", "measure", "pack_model"),
)
ROLES = {
    "training": "tiny",
    "inference": "decode",
    "metrics": "metrics",
    "publication": "publication",
}
MODEL: dict[str, dict[str, object]] = {
    "encoder_conf": {
        "output_size": 16,
        "attention_heads": 2,
        "linear_units": 16,
        "num_blocks": 2,
        "input_channels": 4,
        "pooling_layers": [1],
    },
    "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
}
LOADER = {part: {"iter_factory": {"num_workers": 0}} for part in ("train", "valid")}
TRAINER = {
    "max_epochs": 2,
    "enable_model_summary": False,
    "logger": [
        {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "${exp_dir}"}
    ],
}


def lay_out(corpus: str, folder: Path) -> list[str]:
    """Make ``egs2`` and ``egs3`` of a corpus in a folder, both with the miniature.

    Returns:
        Options of ``run.sh`` for the recipe in ``egs2``.
    """
    old, new = folder / "egs2", folder / "egs3"
    options: list[str] = getattr(stock_cases, corpus)(old)
    made = shutil.ignore_patterns("data", "exp", "downloads", "local", "__pycache__")
    shutil.copytree(RECIPES / corpus / "esp2_asr", new, ignore=made)
    shutil.copytree(old / "local", new / "local")
    (new / "downloads").symlink_to(old / "downloads")
    return options


def write_conf(folder: Path, name: str, base: str, **more: object) -> Path:
    """Write ``conf/NAME.yaml``, which changes ``conf/BASE.yaml``."""
    path = folder / "conf" / f"{name}.yaml"
    conf = {"defaults": [base, "_self_"], **more}
    path.write_text(yaml.safe_dump(conf, sort_keys=False))
    return path


def small_model(folder: Path, taught: bool = False) -> dict[str, object]:
    """Options of a small model; with the tiny teacher of the recipe in ``egs2``.

    That teacher knows letters: then the frames stay short.
    """
    if not taught:
        return MODEL
    teacher = {
        "teacher": str(folder / "egs2" / "teacher"),
        "teacher_dim": HIDDEN,
        "layer": 1,
        "teacher_store": "data/teacher_store",
    }
    encoder = {**MODEL["encoder_conf"], "pooling_layers": []}
    conf = {"criterion_conf": teacher}
    return {**MODEL, "encoder_conf": encoder, "model_conf": conf}


def run(
    folder: Path,
    *stages: str,
    python: str = sys.executable,
    fails: bool = False,
    **confs: str,
) -> "subprocess.CompletedProcess[str]":
    """Run stages of ``folder/run.py``; keywords name the configuration of a role."""
    words = [
        word
        for role, name in confs.items()
        for word in (f"--{role}_config", f"conf/{name}.yaml")
    ]
    done = subprocess.run(
        [python, "-m", "espnet_cif_hkd", "run.py", "--stages", *stages, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) is fails, (done.stdout + done.stderr)[-6000:]
    return done
