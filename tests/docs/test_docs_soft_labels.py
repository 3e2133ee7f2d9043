"""docs/soft_labels.svg is what its tool draws, and names what the criterion logs."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from soft_levels import UNIT, chars, criteria, write_ctm
from test_docs_figure import words
from tone_teacher import ALONE, host_model, speech_batch, texts_of

from espnet_cif_hkd.cli.align_units import get_parser
from espnet_cif_hkd.distill import CheckContext
from espnet_cif_hkd.distill.choices import configured
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm.aligning import STATE_TOKENS, STATES
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher

PAGE = Path(__file__).resolve().parents[2] / "docs" / "soft_labels.md"
LANGUAGE_MODELS = (
    *("espnet", "hf_causal", "hf_masked", "hf_characters", "uniform", "unigram"),
)


def examples():
    """The criterion of each example of the page."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    return [one for b in blocks for one in configured(yaml.safe_load(b)["model_conf"])]


def test_the_examples_of_the_page_are_accepted():
    found = examples()
    assert found
    for item in found:
        item.cls.check(item.conf, CheckContext("cif"))


def test_the_example_of_states_names_what_align_units_writes():
    levels = [one for item in examples() for one in item.conf["levels"].values()]
    (state,) = [level for level in levels if level.get("unit") == "aligned"]
    alignment, tokens = Path(state["alignment"]), Path(state["unit_token_list"])
    assert (alignment.name, tokens.name) == (STATES, STATE_TOKENS)
    assert alignment.parent == tokens.parent
    (command,) = re.findall(r"cli\.align_units (--.*?)\n```", PAGE.read_text(), re.S)
    args = get_parser().parse_args(shlex.split(command.replace("\\\n", " ")))
    assert args.out_dir == alignment.parent and str(args.lexicon) == state["lexicon"]


def test_the_options_of_each_language_model_are_in_the_page_of_options():
    """``lm_conf``: 'type, type: option, option. type: …'."""
    page = (PAGE.parent / "configuration.md").read_text("utf-8")
    (row,) = re.findall(r"^\| `lm_conf` \| (.*) \|$", page, re.M)
    for kind in LANGUAGE_MODELS:
        with pytest.raises(UserError, match="has no option '0'; it has ") as caught:
            build_lm_teacher({"lm": "x", "lm_type": kind, "lm_conf": {"0": 1}}, UNIT)
        options = str(caught.value).partition("it has ")[2]
        (said,) = [part for part in row.split(". ") if f"`{kind}`" in part]
        if options == "none":
            assert said.endswith("have none")
        else:
            assert all(f"`{name}`" in said for name in options.split(", "))


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
