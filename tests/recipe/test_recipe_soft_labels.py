"""Criterion ``soft_labels`` in recipes: fingerprints and checks of its files."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
from recipe_data import make_run
from soft_levels import chars, criteria, unit_file
from tiny_model import TOKENS

from espnet_cif_hkd.distill.filling import fill_stores
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.preflight import check_arguments
from espnet_cif_hkd.recipe.hooks import stale_stores, teacher_inputs


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


def test_a_store_of_another_model_is_no_reason_to_reuse_a_training(tmp_path):
    """Its header is unchanged until the store is filled again."""
    tokens = Path(tmp_path / "tokens.txt")
    tokens.write_text("".join(f"{token}\n" for token in TOKENS))
    run = make_run()
    run = replace(run, paths=replace(run.paths, token_list=tokens))
    folder = tmp_path / "labels"
    level = chars(tmp_path, map="cif", label_store=str(folder))

    def stale():
        args = argparse.Namespace(model_conf=criteria({"one": level}))
        return stale_stores(run, args)

    assert stale() == []
    fill_stores(
        {"model_conf": criteria({"one": level}, token_type="char")},
        *("train.yaml", {"token_list": str(tokens), "token_type": "char"}),
        *([_text(tmp_path)], None, "cpu"),
    )
    assert stale() == []
    level["temperature"] = 1.5
    assert stale() == [str(folder)]
    level["soft"] = 0
    assert stale() == []


def _text(folder):
    path = folder / "text"
    path.write_text("u1 ABBA\n")
    return path


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
