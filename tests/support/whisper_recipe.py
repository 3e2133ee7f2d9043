"""Recipes of ``--system whisper_decoder`` for tests: small models, recorded calls."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from recorded_recipe import RecordedRecipe

SYSTEM = ("--system", "whisper_decoder")
CONF = "conf/train_asr_cif_whisper_decoder.yaml"
# What run.sh adds to --asr_args for the sizes of write_sizes.
SIZED = [
    *("--frontend_conf", "teacher=downloads/whisper"),
    *("--decoder_conf", "num_blocks=12", "--decoder_conf", "size=768"),
]


def recorded(corpus: str, folder: Path) -> RecordedRecipe:
    """Lay out a recipe with an empty file in place of a Whisper."""
    made = RecordedRecipe(corpus, folder)
    model = made.folder / "downloads/whisper/model.safetensors"
    model.parent.mkdir(parents=True)
    model.touch()
    return made


def write_sizes(folder: Path) -> None:
    """Write what whisper_decoder writes of the size of a decoder."""
    folder.mkdir(parents=True)
    conf = {"decoder": "cif_whisper", "decoder_conf": {"size": 768, "num_blocks": 12}}
    (folder / "config.yaml").write_text(yaml.safe_dump(conf))


def run_small(folder: Path, *words: str) -> str:
    """Run ``run.sh`` up to stage 13 with a small encoder and two passes.

    Args:
        folder: Of the recipe.
        words: Further options of run.sh.

    Returns:
        What it printed.
    """
    path = folder / CONF
    conf: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    conf["encoder_conf"]["encoder_conf"].update(
        output_size=8, attention_heads=2, linear_units=16, num_blocks=1
    )
    conf.update(batch_bins=2_000_000, max_epoch=2, num_workers=0, use_amp=False)
    conf.update(use_matplotlib=False, use_tensorboard=False, keep_nbest_models=2)
    path.write_text(yaml.safe_dump(conf))
    small = ("--ngpu", "0", "--nj", "1", "--inference_nj", "1", "--stop_stage", "13")
    inherited = {k: v for k, v in os.environ.items() if k != "ESPNET_ROOT"}
    done = subprocess.run(
        ["bash", "run.sh", *SYSTEM, *small, *words],
        cwd=folder,
        env={
            **inherited,
            "PYTHON": sys.executable,
            "AISHELL": str(folder / "downloads"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout
