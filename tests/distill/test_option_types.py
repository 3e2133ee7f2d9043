"""A value of a wrong type gets one line, whatever the option; never a traceback."""

import dataclasses
import inspect

import pytest
from soft_levels import chars
from tiny_bert import HIDDEN, build_tiny_bert
from tiny_model import TOKENS
from tone_teacher import tone

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.distill import (
    CheckContext,
    FramesCriterion,
    HKDCriterion,
    SoftLabelsCriterion,
    Student,
    TextOnlyCriterion,
)
from espnet_cif_hkd.distill.level_options import LM_OPTIONS, UNIT_OPTIONS, LevelOptions
from espnet_cif_hkd.distill.options import LEVELS
from espnet_cif_hkd.distill.taps import MODEL_TAPS, TokenLoss
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm.registry import lm_choices
from espnet_cif_hkd.teachers.speech.config import OPTIONS

STUDENT = Student(
    "cif",
    tuple(TOKENS),
    {**dict.fromkeys(MODEL_TAPS["cif"], 8), "layer:1": 8, "speech": 1},
    timing={"hs_pad": FrameTimes(0.03, 0.04)},
    rate=8000,
    token_loss=TokenLoss(),
)
VALUES = (["x"], [2, 4], {"a": 1}, "lower", "none", 1.5, True, None, -1)
RANDOM = {"teacher_type": "random", "teacher_dim": 6}
FIRING = ("conv_channels", "conv_width", "dropout_rate", "causal", "other")


def options_of(cls):
    return list(inspect.signature(cls).parameters)[1:]


def nothing_but_one_line(cls, conf_with, options):
    """Each value of each option is accepted or refused in one line; how many are."""
    refused = 0
    for option in options:
        for value in VALUES:
            conf = conf_with({option: value})
            try:
                cls.check(conf, CheckContext("cif", TOKENS, "char"))
                cls(STUDENT, **conf)
            except UserError as error:
                assert "\n" not in str(error), (option, value)
                refused += 1
            except Exception as error:
                raise AssertionError(f"{option}: {value!r}") from error
    return refused


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    teacher = build_tiny_bert(tmp_path_factory.mktemp("bert"))
    return {"teacher": teacher, "teacher_dim": HIDDEN}


@pytest.mark.parametrize("option", options_of(HKDCriterion))
def test_hkd(bert, option):
    nothing_but_one_line(HKDCriterion, lambda one: {**bert, **one}, [option])


def test_parts_of_hkd():
    for level, known in LEVELS.items():
        nothing_but_one_line(
            HKDCriterion, lambda one, level=level: {**RANDOM, level: one}, known
        )
    nothing_but_one_line(HKDCriterion, lambda one: {**RANDOM, **one}, [*RANDOM])
    nothing_but_one_line(
        HKDCriterion,
        lambda one: {**RANDOM, "teacher_conf": one},
        ("seed", "variance"),
    )


@pytest.mark.parametrize("teacher", ["embedding", "teacher"])
def test_text_only(bert, tmp_path, teacher):
    (tmp_path / "text").write_text("a ABC\n")
    conf = {"text": str(tmp_path / "text"), "source": teacher}
    conf |= bert if teacher == "teacher" else {}
    names = {"text", "mask", "batch_size", "seed", "layer", "teacher_store", "bpemodel"}
    options = [name for name in options_of(TextOnlyCriterion) if name in names]
    nothing_but_one_line(TextOnlyCriterion, lambda one: {**conf, **one}, options)


def test_frames():
    base = {"teachers": {"one": tone()}}
    options = options_of(FramesCriterion)
    assert nothing_but_one_line(FramesCriterion, lambda one: {**base, **one}, options)


@pytest.mark.parametrize("kind", ["hf", "random", "moonshine"])
def test_speech_teachers(kind):
    one = {"teacher": "models/gone", "teacher_type": kind, "rate": 8000}
    one |= {"teacher_dim": 4, "normalize": False}
    nothing_but_one_line(
        FramesCriterion,
        lambda changed: {"teachers": {"one": {**one, **changed}}},
        (*OPTIONS, "weight", "normalize"),
    )


@pytest.mark.parametrize("way", ["ctc", "cif", "alignment"])
def test_levels(tmp_path, way):
    base = {**chars(tmp_path), "map": way, "alignment": str(tmp_path / "a.ctm")}
    ours = [item.name for item in dataclasses.fields(LevelOptions)]
    nothing_but_one_line(
        SoftLabelsCriterion,
        lambda one: {"levels": {"one": {**base, **one}}},
        [name for name in (*ours, *UNIT_OPTIONS, *LM_OPTIONS) if name != "alignment"],
    )
    if way == "cif":
        nothing_but_one_line(
            SoftLabelsCriterion,
            lambda one: {"levels": {"one": {**base, "predictor_conf": one}}},
            FIRING,
        )


@pytest.mark.parametrize("kind", sorted(set(lm_choices.classes) - {"table"}))
def test_language_models(tmp_path, kind):
    base = {**chars(tmp_path), "lm_type": kind, "lm": str(tmp_path)}
    refused = nothing_but_one_line(
        SoftLabelsCriterion,
        lambda one: {"levels": {"one": {**base, **one}}},
        ["lm_conf"],
    )
    assert refused > 5
