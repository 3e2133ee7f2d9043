"""docs/soft_labels.svg is what its tool draws, and names what the criterion logs."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from soft_levels import chars, criteria, write_ctm
from test_docs_figure import words
from tone_teacher import ALONE, host_model, speech_batch, texts_of

from espnet_cif_hkd.distill import CheckContext
from espnet_cif_hkd.distill.choices import configured

PAGE = Path(__file__).resolve().parents[2] / "docs" / "soft_labels.md"


def test_the_examples_of_the_page_are_accepted():
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert blocks
    for block in blocks:
        (item,) = configured(yaml.safe_load(block)["model_conf"])
        item.cls.check(item.conf, CheckContext("cif"))


@pytest.fixture(scope="module")
def tool():
    for package in ("matplotlib", "scour"):
        pytest.importorskip(package, reason=f"pictures need {package}")
    return importlib.import_module("draw_soft_labels")


@pytest.mark.slow
def test_the_committed_picture_is_the_drawn_one(tool, tmp_path):
    tool.main(tmp_path / "soft_labels.svg")
    assert words(tmp_path / "soft_labels.svg") == words(tool.PICTURE)


def test_it_names_the_losses_of_the_log(tool, tmp_path):
    aligned = {f"utterance{n}": ([3], np.array([[0.1, 0.5]])) for n in range(3)}
    ctm = write_ctm(tmp_path / "units.ctm", aligned)
    levels = {
        name: chars(tmp_path, "hs_pad", map=way.removeprefix("map: "), alignment=ctm)
        for name, (_, way, _) in tool.LEVELS.items()
    }
    model = host_model("cif", criteria(levels)["criteria"], ALONE).train()
    _, stats, _ = model(**speech_batch(), **texts_of())
    found = {name for name in stats if name.startswith("lm.loss_")}
    drawn = " ".join(losses for _, _, losses in tool.LEVELS.values())
    assert {f"lm.{name}" for name in drawn.split()} == found
    assert set(re.findall(r"loss_\w+", " ".join(words(tool.PICTURE)))) == set(
        drawn.split()
    )


def test_the_coloured_frames_are_those_that_learn(tool):
    """By hand: spans at the centres of frames, a path of CTC, sums of weights."""
    centres = [0.03 + 0.04 * k for k in range(len(tool.SHOWN))]
    inside = [
        next((n for n, (a, b) in enumerate(tool.SPANS.tolist()) if a <= at < b), -1)
        for at in centres
    ]
    assert tool.alignment_units().tolist() == inside
    assert tool.ctc_units().tolist() == list(tool.SHOWN)
    weights = tool.cif_shares()
    np.testing.assert_allclose(weights.sum(1), 1.0)
    np.testing.assert_allclose(
        weights.sum(0), np.array(tool.ALPHA) * 4 / sum(tool.ALPHA), atol=1e-12
    )
    assert torch.is_tensor(tool.SPANS)
