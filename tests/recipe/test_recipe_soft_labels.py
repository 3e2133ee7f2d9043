"""Criterion ``soft_labels`` in recipes: fingerprints and checks of its files."""

import argparse

import pytest
from recipe_data import make_run
from soft_levels import chars, criteria, unit_file

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.preflight import check_arguments
from espnet_cif_hkd.recipe.hooks import teacher_inputs


def inputs_of(levels):
    args = argparse.Namespace(
        model_conf=criteria(levels), frontend="default", frontend_conf={}
    )
    return [str(path) for path in teacher_inputs(make_run(), args)]


def test_fingerprints_have_the_files_of_all_levels(tmp_path):
    """A model with a store is in the header of the store."""
    lm = tmp_path / "lm"
    lm.mkdir()
    phone = {
        "tap": "layer:1",
        "unit": "lexicon",
        "unit_token_list": "phones.txt",
        "lexicon": "lexicon.txt",
        "alignment": "phones.ctm",
        "lm": str(lm),
    }
    expected = ["phones.txt", "lexicon.txt", "phones.ctm"]
    assert inputs_of({"phone": phone}) == [*expected, str(lm)]
    stored = {**phone, "label_store": "dump/phone"}
    assert inputs_of({"phone": stored}) == [*expected, "dump/phone/header.json"]
    control = {"tap": "hs_pad", "unit": "token", "label_store": "dump/uniform"}
    assert inputs_of({"u": control, "hard": {"tap": "hs_pad", "unit": "token"}}) == [
        "dump/uniform/header.json"
    ]


def test_the_launcher_checks_files_before_a_training(tmp_path):
    """ESPnet's own command line, without a recipe."""
    level = chars(tmp_path, map="cif", label_store=str(tmp_path / "labels"))
    args = argparse.Namespace(
        config=None,
        model_conf=criteria({"one": level}),
        decoder="cif",
        joint_net_conf=None,
        init_param=[],
        token_list=unit_file(tmp_path),
    )
    with pytest.raises(UserError, match=r"criteria\.lm\.levels\.one\.label_store"):
        check_arguments(args)
    level["soft"] = 0
    args.model_conf = criteria({"one": level})
    check_arguments(args)
