"""Bad input of ``soft_labels``: one line each, before hours are spent."""

import pytest
import torch
from espnet_parts import ENCODERS
from level_loops import audio, features, stepped
from soft_levels import UNIT, chars, criteria, spans_of, to_unit, unit_file, write_ctm
from tiny_model import TOKENS, tiny_batch, tiny_model
from tone_teacher import ALONE, host_model

from espnet_cif_hkd.distill import CheckContext, SoftLabelsCriterion, level_heads
from espnet_cif_hkd.distill.level_options import level_options
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.preflight import check_repeated_keys


def refused(message, levels, **changes):
    with pytest.raises(UserError, match=message) as caught:
        tiny_model(model_conf=criteria(levels), **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tap": None}, r"one\.tap is not set; use layer:N, hs_pad or logits"),
        ({"tap": "fired"}, r"one\.tap is 'fired'; use hs_pad, layer:N, or logits"),
        ({"map": "dtw"}, r"one\.map is 'dtw'; use one of alignment, ctc, cif"),
        ({"position": "left"}, r"one\.position is 'left'; use one of all, middle"),
        ({"hard": "cif"}, r"one\.hard is 'cif'; use one of ctc with map: ctc"),
        ({"map": "cif", "hard": "ctc"}, r"use one of cif, none with map: cif"),
        ({"soft": 1.5}, r"one\.soft is 1\.5; give a number 0 to 1"),
        ({"soft": "1"}, r"one\.soft is '1'; give a number 0 to 1"),
        ({"soft": True}, r"one\.soft is True; give a number"),
        ({"weight": -1}, r"one\.weight is -1; give a number at least 0"),
        ({"weight": float("nan")}, r"one\.weight is nan; give a number at least 0"),
        ({"max_missing": 101}, r"one\.max_missing is 101; give a number 0 to 100"),
        ({"quantity_weight": None}, r"one\.quantity_weight is None; give a number"),
        ({"student_temperature": 0}, r"temperature is 0; give a number above 0"),
        ({"square_temperature": 1}, r"square_temperature is 1; use true or false"),
        ({"soft": 1}, r"one: map: ctc aligns by its own hard loss, which soft: 1"),
        ({"map": "cif", "hard": "none", "soft": 0}, r"hard: none and soft: 0 leave no"),
        ({"map": "alignment"}, r"one: map: alignment needs alignment: FILE\.ctm"),
        ({"interpolation": 0.3}, r"one\.interpolation is only for tap: logits"),
        ({"map": "cif", "predictor_conf": 3}, r"one\.predictor_conf is 3; it must"),
        (
            {"map": "cif", "predictor_conf": {"width": 3}},
            r"one: predictor_conf .*width",
        ),
        ({"map": "cif", "predictor_conf": {"conv_width": 2}}, r"width is 2; .* an odd"),
        ({"unit": None}, r"one\.unit is None; use one of token, char"),
        ({"unit": "aligned"}, r"one: unit: aligned has labels in an alignment only"),
        (
            {"unit": "aligned", "map": "cif", "alignment": "state.ctm", "soft": 0},
            r"only: set map: alignment and alignment: FILE\.ctm, or another unit",
        ),
        ({"unit": "syllable"}, r"one\.unit is 'syllable'; use one of token, char"),
        ({"weihgt": 1}, r"one: 'weihgt' is unknown; the options are tap, map, weight"),
        ({"tap": "layer:9"}, r"level one needs the tap 'layer:9'.*layer:1 to layer:1"),
        ({"lm_type": "gpt"}, "lm_type is 'gpt'"),
        ({"temperature": 0}, "temperature is 0; set it to a number > 0"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    conf = {**chars(tmp_path), **options}
    if {"lm_type", "temperature"} & set(options):  # the LM is built by the checks
        context = CheckContext("cif", TOKENS, "char")
        with pytest.raises(UserError, match=f"levels\\.one: .*{message}"):
            SoftLabelsCriterion.check({"levels": {"one": conf}}, context)
        return
    refused(message, {"one": conf})


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({}, r"\.levels is \{\}; write one line for each level"),
        (["phone"], r"\.levels is \['phone'\]; write one line"),
        ({"one": "layer:4"}, r"levels\.one is 'layer:4'; it must hold"),
        ({"a b": {}}, r"levels\.a b: this cannot name a level"),
        ({"keys": {}}, r"levels\.keys: this cannot name a level"),
        ({"o": {"tap": "logits"}}, r"o: tap: logits is label interpolation: set"),
        (
            {"o": {"tap": "logits", "interpolation": 2}},
            r"o\.interpolation is 2; give a number 0 to 1",
        ),
        (
            {"o": {"tap": "logits", "interpolation": 0.1, "unit": "char"}},
            r"o: label interpolation needs the recogniser's own tokens: set unit: tok",
        ),
        (
            {"o": {"tap": "logits", "interpolation": 0.1, "soft": 0.5}},
            r"o: tap: logits has no option soft; its options are interpolation",
        ),
        (
            {
                "o": {"tap": "logits", "interpolation": 0.1},
                "p": {"tap": "logits", "interpolation": 0.2},
            },
            r"p: o interpolates the labels, too; remove one",
        ),
    ],
)
def test_wrong_levels(levels, message):
    refused(message, levels)


def test_two_levels_that_are_the_same(tmp_path):
    one = chars(tmp_path, label_store="dump/x")
    refused("two: has the same options as one", {"one": one, "two": dict(one)})
    other = {**one, "temperature": 2.0}
    refused("two: has the same label_store as one, but", {"one": one, "two": other})
    tiny_model(model_conf=criteria({"one": one, "two": {**one, "map": "cif"}}))


WRITTEN = {
    "unit": "token",
    "unknown_words": "error",
    "lm_type": "espnet",
    "temperature": 3,
    "top_k": 8,
    "lm_conf": {},
    "lm_revision": None,
}


@pytest.mark.parametrize("option", WRITTEN)
def test_a_default_that_is_written_is_the_same(option):
    """Levels share a store, and equal levels are refused, whether it is written."""
    plain = {"tap": "hs_pad", "unit": "token", "lm": "exp/lm", "label_store": "dump/x"}
    written = {**plain, option: WRITTEN[option]}
    refused("two: has the same options as one", {"one": plain, "two": written})
    output = {**plain, "tap": "logits", "interpolation": 0.3}
    del output["unit"]
    level_options({"one": output, "two": written})


def test_a_name_twice_in_the_yaml():
    """YAML would keep the last one."""
    text = """
model_conf:
  criteria:
    lm:
      type: soft_labels
      levels:
        phone: {tap: "layer:2", unit: char}
        phone: {tap: "layer:2", unit: word}
"""
    with pytest.raises(UserError, match="has 'phone' twice in one mapping, again in l"):
        check_repeated_keys("config", "train.yaml", text)


def test_a_level_deeper_than_the_encoder(tmp_path):
    conf = {"levels": {"low": chars(tmp_path, "layer:4")}}
    training = {"encoder_conf": {"num_blocks": 3}}
    message = r"levels\.low: tap layer:4, but the layers of the encoder are 1 to 3"
    with pytest.raises(UserError, match=message):
        SoftLabelsCriterion.check(conf, CheckContext("cif", training=training))
    with pytest.raises(UserError, match=message):
        SoftLabelsCriterion.check_training(conf, training)
    refused(
        "level low needs the tap 'layer:4'",
        {"low": chars(tmp_path, "layer:4")},
        encoder="conformer",
        encoder_conf=ENCODERS["conformer"],
    )
    with pytest.raises(UserError, match=r"tap layer:0, but the layers .* are 1 "):
        conf = {"levels": {"low": chars(tmp_path, "layer:0")}}
        SoftLabelsCriterion.check(conf, CheckContext("cif"))


def test_files_that_are_missing(tmp_path):
    """A training refuses its first batch, and the checks before; decoding does not."""
    level = {**chars(tmp_path), "unit_token_list": str(tmp_path / "absent.txt")}
    conf = {"levels": {"one": level}}
    message = r"one\.unit_token_list .*absent\.txt: this file does not exist"
    for check in (
        lambda: SoftLabelsCriterion.check(conf, CheckContext("cif", TOKENS, "char")),
        lambda: SoftLabelsCriterion.check_training(conf, {}),
    ):
        with pytest.raises(UserError, match=message):
            check()
    SoftLabelsCriterion.check(conf, CheckContext("cif"))  # before stage 1
    model = tiny_model(model_conf=criteria({"one": level}))
    assert not model.criteria["lm"].heads
    with pytest.raises(UserError, match=message):
        model(**tiny_batch())


def test_a_store_that_is_missing(tmp_path):
    folder = tmp_path / "labels"
    level = chars(tmp_path, map="cif", label_store=str(folder))
    with pytest.raises(UserError, match=r"one\.label_store .*run: python3 -m esp"):
        SoftLabelsCriterion.check_training({"levels": {"one": level}}, {})
    model = tiny_model(model_conf=criteria({"one": level}))
    with pytest.raises(UserError, match=r"levels\.one: label_store .*no header.json"):
        model(**tiny_batch())
    hard = chars(tmp_path, map="cif", label_store=str(folder), soft=0)
    SoftLabelsCriterion.check_training({"levels": {"one": hard}}, {})


def test_alignments_that_are_missing(tmp_path):
    batch = audio()
    units = to_unit([3, 4, 5])
    aligned = {"utterance0": (units, spans_of(units, 0.6))}
    ctm = write_ctm(tmp_path / "units.ctm", aligned)
    text = tmp_path / "text"
    text.write_text("".join(f"utterance{n} ABC\n" for n in range(3)))
    level = chars(tmp_path, map="alignment", alignment=ctm)
    paths = [(str(text), "text", "text"), ("wav.scp", "speech", "sound")]
    training = {"train_data_path_and_name_and_type": paths}
    with pytest.raises(UserError, match=r"2 of 3 utt.* \(utterance1, utterance2\), mo"):
        SoftLabelsCriterion.check_training({"levels": {"one": level}}, training)
    level["max_missing"] = 70
    SoftLabelsCriterion.check_training({"levels": {"one": level}}, training)
    del batch["utt_id"]
    model = host_model("cif", criteria({"one": level})["criteria"], ALONE).double()
    with pytest.raises(UserError, match="map: alignment needs the names of the utter"):
        stepped(model, batch)
    level["alignment"] = str(tmp_path / "absent.ctm")
    with pytest.raises(UserError, match=r"levels\.one: alignment .*absent.ctm is miss"):
        SoftLabelsCriterion.check_training({"levels": {"one": level}}, training)


def test_alignments_without_times_or_with_time_warp(tmp_path):
    level = chars(tmp_path, map="alignment", alignment="units.ctm")
    refused("tap hs_pad: the times of its frames are unknown", {"one": level})
    training = {"specaug": "specaug", "specaug_conf": {}}
    with pytest.raises(UserError, match="time warp moves the student's frames"):
        SoftLabelsCriterion.check_training({"levels": {"one": level}}, training)
    training = {"preprocessor": "silence"}
    with pytest.raises(UserError, match=r"levels\.one: map: alignment does not fit"):
        SoftLabelsCriterion.check_training({"levels": {"one": level}}, training)


def short_for_ctc(folder, **options):
    """A model, and a batch of three utterances, one of them too short for its text."""
    level = chars(folder, map="ctc", **options)
    model = tiny_model(model_conf=criteria({"one": level})).double().train()
    batch = features(3)
    frames = int(batch["speech_lengths"][1])
    batch["text_lengths"] = torch.tensor([3, frames + 1, 4])
    batch["text"] = 3 + torch.arange(frames + 1).expand(3, -1) % 8
    return model, batch


@pytest.mark.parametrize("share", [0.0, 5.0])
def test_too_many_utterances_that_ctc_cannot_spell(tmp_path, monkeypatch, share):
    """Once, after a number of utterances that a resumed training does not count again.

    No finished work is lost.
    """
    monkeypatch.setattr(level_heads, "_ENOUGH", 9)
    model, batch = short_for_ctc(tmp_path, max_missing=share)
    stepped(model.eval(), batch)  # a validation is not counted
    stepped(model.train(), batch)
    resumed, _ = short_for_ctc(tmp_path, max_missing=share)
    resumed.load_state_dict(model.state_dict())
    stepped(resumed, batch)
    if share:  # 3 of 9 are above 5 %, but perhaps by chance
        stepped(resumed, batch)
        return
    message = r"levels\.one: 3 of the first 9 utterances have fewer.*max_missing 0 %"
    with pytest.raises(UserError, match=message):
        stepped(resumed, batch)
    late, _ = short_for_ctc(tmp_path, max_missing=share)
    late.load_state_dict(resumed.state_dict())
    stepped(late, batch)


def test_the_count_of_a_checkpoint_may_lack(tmp_path):
    """As in those of earlier versions."""
    model, batch = short_for_ctc(tmp_path)
    stepped(model, batch)
    head = model.criteria["lm"].heads["one"]
    assert (head.seen.updates, head.left_out.updates) == (3, 1)
    state = {k: v for k, v in model.state_dict().items() if "updates" not in k}
    assert len(state) == len(model.state_dict()) - 2
    model.load_state_dict(state)
    assert head.seen.updates == 0


def test_a_language_model_of_another_token_list(tmp_path):
    """The label store of a unit with other tokens is refused at the first batch."""
    from espnet_cif_hkd.distill.criterion import Sentences

    folder = str(tmp_path / "labels")
    level = chars(tmp_path, map="cif", label_store=folder)
    sentences = Sentences(lambda: [[3, 4]], TOKENS, "char", torch.device("cpu"))
    SoftLabelsCriterion.fill({"levels": {"one": level}}, folder, sentences)
    other = unit_file(tmp_path, [*UNIT[:2], *UNIT[2:-1][::-1], UNIT[-1]])
    model = tiny_model(
        model_conf=criteria({"one": {**level, "unit_token_list": other}})
    )
    with pytest.raises(
        UserError, match=r"^criteria\.lm\.levels\.one: label_store .*another token"
    ):
        model(**tiny_batch())
