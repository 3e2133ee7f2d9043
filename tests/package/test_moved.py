"""Module names of version 0.2 import what has replaced them."""

import importlib
import importlib.util
import subprocess
import sys

import pytest

from espnet_cif_hkd.moved import MOVED


def test_every_new_name_exists():
    for name in MOVED.values():
        assert importlib.util.find_spec(f"espnet_cif_hkd.{name}") is not None, name


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("recipe.kaldi_files", "io.tables"),
        ("distill.contrastive", "losses.contrastive"),
        ("bin.budget", "cli.budget"),
        ("launcher", "plugin.launcher"),
        ("model", "models.cif"),
        ("speech2text", "inference.speech2text"),
    ],
)
def test_an_old_name_is_the_new_module(old, new):
    expected = importlib.import_module(f"espnet_cif_hkd.{new}")
    sys.modules.pop(f"espnet_cif_hkd.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"has moved to espnet_cif_hkd\.{new}"):
        module = importlib.import_module(f"espnet_cif_hkd.{old}")
    assert module is expected
    assert module.__spec__ is not None
    assert module.__spec__.name == f"espnet_cif_hkd.{new}"


@pytest.mark.slow
def test_an_old_command_runs():
    done = subprocess.run(
        [sys.executable, "-m", "espnet_cif_hkd.bin.budget", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--hours" in done.stdout


def test_a_name_that_never_was_is_missing():
    with pytest.raises(ModuleNotFoundError, match="never_was"):
        importlib.import_module("espnet_cif_hkd.never_was")
