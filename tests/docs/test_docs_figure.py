"""docs/hkd.svg is what tools/draw_hkd.py draws, and shows what the model has."""

import importlib
import re

import numpy as np
import pytest
import torch
from hkd_models import model_of
from tiny_bert import build_tiny_bert
from tiny_model import tiny_batch

from espnet_cif_hkd.cif import integrate_and_fire


@pytest.fixture(scope="module")
def tool():
    for package in ("matplotlib", "scour"):
        pytest.importorskip(package, reason=f"pictures need {package}")
    return importlib.import_module("draw_hkd")


def words(path):
    """The texts of an SVG; releases of matplotlib may place them otherwise."""
    svg = path.read_text(encoding="utf-8")
    return re.findall(r"<text[^>]*>(.*?)</text>", svg, re.DOTALL)


@pytest.mark.slow
def test_the_committed_picture_is_the_drawn_one(tool, tmp_path):
    tool.main(tmp_path / "hkd.svg")
    drawn = words(tmp_path / "hkd.svg")
    assert drawn == words(tool.PICTURE)


def test_it_shows_the_losses_of_the_log(tool, tmp_path):
    model = model_of("hkd", build_tiny_bert(tmp_path)).train()
    _, stats, _ = model(**tiny_batch())
    losses = {name for name in stats if name.startswith("loss_")}
    assert losses == set(tool.LOSSES)
    shown = dict(re.findall(r"(loss_\w+) × ([\d.]+)", " ".join(words(tool.PICTURE))))
    assert shown == tool.LOSSES


def test_its_weights_are_the_models(tool, tmp_path):
    model = model_of("hkd", build_tiny_bert(tmp_path))
    weights = {
        "loss_att": 1.0,
        "loss_ctc": model.ctc_weight,
        "loss_quantity": model.quantity_weight,
        "loss_acd": model.criterion.acoustic["weight"],
        "loss_lrd": model.criterion.linguistic["weight"],
    }
    assert {name: float(text) for name, text in tool.LOSSES.items()} == weights


def test_the_coloured_shares_are_what_fires(tool):
    alpha = np.array([0.5, 0.9, 2.2, 0.4])
    shares = tool.shares(alpha, 4)
    frames = torch.eye(4, dtype=torch.float64)[None]
    fired = integrate_and_fire(
        frames, torch.from_numpy(alpha)[None], torch.tensor([4]), torch.tensor([4])
    )
    torch.testing.assert_close(torch.from_numpy(shares), fired.embeddings[0])
