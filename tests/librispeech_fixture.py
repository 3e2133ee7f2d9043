"""What the tests of LibriSpeech's recipe share."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from miniature.librispeech import RATE, Clip

RECIPE = Path(__file__).parents[1] / "egs2" / "librispeech" / "asr_hkd"
LOCAL = RECIPE / "local"
SENTENCES = (
    "I DON'T KNOW WHAT YOU MEAN",
    "THE BOYS' TOYS WERE LOST AT SEA",
    "IT WAS FOUR O'CLOCK IN THE MORNING",
    "HE WALKED ALONG THE RIVER AND SAID NOTHING",
    "TIS A FINE DAY SAID THE OLD WOMAN",
    "SHE OPENED THE DOOR OF THE HOUSE",
    "THERE WAS NO ANSWER FROM THE OTHER SIDE",
    "WE SHALL MEET AGAIN BEFORE THE WINTER",
    "THE KING'S HORSES STOOD IN THE RAIN",
    "A LITTLE BOAT CAME ROUND THE ISLAND",
    "NOBODY HAD SEEN HIM SINCE THE SPRING",
    "I'LL TELL YOU THE STORY ANOTHER TIME",
)


def load(name: str) -> ModuleType:
    """Import a module of the recipe's ``local/``."""
    if str(LOCAL) not in sys.path:
        sys.path.insert(0, str(LOCAL))
    return importlib.import_module(name)


def tones() -> list[Clip]:
    """Synthetic clips, no speech: one pitch for each letter of a sentence."""
    rng = np.random.default_rng(3)
    clips = []
    for sentence in SENTENCES:
        step = np.arange(RATE // 12) / RATE
        waves = [
            0.3 * np.sin(2 * np.pi * (200 + 60 * (ord(letter) % 32)) * step)
            if letter != " "
            else np.zeros_like(step)
            for letter in sentence
        ]
        samples = np.concatenate(waves)
        clips.append(Clip(sentence, samples + 0.01 * rng.standard_normal(len(samples))))
    return clips


def told(folder: Path, script: str, *arguments: str, **environment: str) -> list[str]:
    """What a script of the recipe would start: the arguments of its last Python.

    Raises:
        AssertionError: the script failed.
    """
    recorder = folder / "recorder"
    recorder.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$RECORD"\n')
    recorder.chmod(0o755)
    record = folder / "record"
    done = shell(
        script, *arguments, PYTHON=str(recorder), RECORD=str(record), **environment
    )
    assert done.returncode == 0, done.stderr
    return record.read_text().splitlines()


def shell(
    script: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script of the recipe in the present folder."""
    inherited = {k: v for k, v in os.environ.items() if k != "LIBRISPEECH"}
    return subprocess.run(
        [str(RECIPE / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**inherited, "PYTHON": "false", **environment},
    )
