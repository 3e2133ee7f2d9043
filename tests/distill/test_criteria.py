"""The criteria that a configuration names: one or several, ours or a user's own."""

import pytest
import recorder
import torch
from recorder import MeanFrame, Recorder
from tiny_bert import HIDDEN, build_tiny_bert
from tiny_model import tiny_batch, tiny_model

from espnet_cif_hkd.distill import (
    AbsDistillCriterion,
    CheckContext,
    DistillOutput,
    HKDCriterion,
    criterion_choices,
)
from espnet_cif_hkd.distill.choices import configured
from espnet_cif_hkd.errors import UserError


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return build_tiny_bert(tmp_path_factory.mktemp("bert"))


def step(model):
    torch.manual_seed(3)
    loss, stats, _ = model.train()(**tiny_batch())
    return loss, stats


def test_several_criteria_add_up_and_log_under_their_names(bert):
    every = {"num_negatives": "all"}
    hkd = {"teacher": bert, "teacher_dim": HIDDEN, "acoustic": every}
    frame = {"layer": 1, "weight": 0.5}
    criteria = {
        "bert": {"type": "hkd", **hkd},
        "words": {"type": "HKD", **hkd, "acoustic": None},
        "frames": {"type": "mean_frame", **frame},
    }
    model = tiny_model(model_conf={"criteria": criteria})
    plain = tiny_model()
    plain.load_state_dict(model.state_dict(), strict=False)
    loss, stats = step(model)
    alone, model_stats = step(plain)
    names = {"bert.loss_acd", "bert.loss_lrd", "bert.acc_acd", "bert.negatives_acd"}
    names |= {"words.loss_lrd", "frames.loss_frame", "frames.frames"}
    assert set(stats) - set(model_stats) == names
    weights = {"bert.loss_acd": 1, "bert.loss_lrd": 0.01, "words.loss_lrd": 0.01}
    weights["frames.loss_frame"] = 0.5
    extra = sum(weight * stats[name] for name, weight in weights.items())
    torch.testing.assert_close(loss, alone + extra)
    assert float(stats["loss"]) == float(loss.detach())
    assert float(stats["frames.frames"]) == int(tiny_batch()["speech_lengths"].sum())
    keys = {k.rpartition(".")[0] for k in model.state_dict() if k.startswith("crit")}
    assert keys == {
        *("criteria.bert.acoustic_projection", "criteria.bert.linguistic_projection"),
        *("criteria.words.linguistic_projection", "criteria.frames.project"),
    }
    loss.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    # Inference needs none of them.
    plain.load_state_dict(model.state_dict(), strict=False)
    model.load_state_dict(plain.state_dict(), strict=False)


def test_the_shorthand_is_one_of_criteria(bert):
    conf = {"teacher": bert, "teacher_dim": HIDDEN}
    short = tiny_model(model_conf={"criterion": "hkd", "criterion_conf": conf})
    named = tiny_model(model_conf={"criteria": {"x": {"type": "hkd", **conf}}})
    losses = [step(model) for model in (short, named)]
    assert torch.equal(losses[0][0], losses[1][0])
    assert {"loss_acd", "loss_lrd", "acc_acd", "negatives_acd"} <= set(losses[0][1])
    assert losses[0][1]["loss_acd"] == losses[1][1]["x.loss_acd"]
    renamed = {k.replace("criteria.x.", "criterion.") for k in named.state_dict()}
    assert renamed == set(short.state_dict())


def test_a_loss_per_frame_is_divided_by_frames():
    conf = {"criterion": "mean_frame", "criterion_conf": {"layer": 1}}
    model = tiny_model(model_conf=conf)
    outputs = []
    model.criterion.register_forward_hook(lambda *hooked: outputs.append(hooked[2]))
    _, stats = step(model)
    loss_sum = float(outputs[0].losses["loss_frame"].detach())
    n_frames = int(tiny_batch()["speech_lengths"].sum())
    assert float(stats["loss_frame"]) == pytest.approx(loss_sum / n_frames)


HKD = {"type": "hkd", "teacher": "t", "teacher_dim": 3}


@pytest.mark.parametrize(
    ("model_conf", "message"),
    [
        ({"criterion": "hdk"}, "criterion must be one of hkd.*'hdk'.*--user_module"),
        ({"criteria": {"a": {"type": "hdk"}}}, "criterion must be one of hkd"),
        ({"criteria": {"a": {"layer": 1}}}, "criteria.a has no type: choose among hkd"),
        ({"criteria": {"a.b": HKD}}, "'a.b' cannot name a criterion"),
        ({"criteria": {"keys": HKD}}, "'keys' cannot name a criterion"),
        ({"criteria": {1: HKD}}, "'1' cannot name a criterion"),
        ({"criteria": ["hkd"]}, r"criteria is \['hkd'\]; it must hold"),
        ({"criteria": {"a": "hkd"}}, "criteria.a is 'hkd'; it must hold"),
        ({"criterion": "hkd", "criteria": {"a": HKD}}, "has criterion and criteria"),
        ({"criterion": "hkd", "criterion_conf": 5}, "criterion_conf is 5; it must"),
        (
            {"criterion": "hkd", "criterion_conf": {"tacher": 1}},
            "criterion_conf: .*'tacher'; HKDCriterion has the options teacher,",
        ),
        ({"criteria": {"a": {**HKD, "tacher": 1}}}, "^criteria.a: .*'tacher'"),
        (
            {"criteria": {"a": {**HKD, "acoustic": {"temprature": 1}}}},
            "^criteria.a.acoustic: unknown option 'temprature'",
        ),
        ({"criteria": {"a": {"type": "hkd"}}}, "^criteria.a.teacher is not set"),
        (
            {"criterion": "recorder", "criterion_conf": {"want": 1}},
            "criterion_conf: .*'want'; Recorder has the options wants",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(model_conf, message):
    with pytest.raises(UserError, match=message) as caught:
        tiny_model(model_conf=model_conf)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [None, "none", "null", "nil"])
def test_no_criterion(name):
    for conf in ({"criterion": name}, {"criterion": name, "criteria": {}}, {}):
        assert configured(conf) == []
    assert configured({"criterion": name, "criteria": {"a": HKD}})[0].name == "a"
    model = tiny_model(model_conf={"criterion": name})
    assert model.criterion is None and not model.has_criteria
    assert model.wanted_taps() == frozenset()


class Rude(Recorder):
    """Logs under a name of the model's."""

    name = "loss_att"

    def forward(self, taps):
        loss = taps.hs_pad.sum()
        return DistillOutput({self.name: loss}, {self.name: 1.0})


@pytest.mark.parametrize("name", ["loss_att", "loss", "cer", "cer_free"])
def test_a_name_of_the_models_is_not_overwritten(name):
    model = tiny_model()
    model.criterion = Rude("hs_pad")
    model.criterion.name = name
    with pytest.raises(UserError, match=f"logs '{name}', a name that the model has"):
        model.train()(**tiny_batch())


class OfVersion02(AbsDistillCriterion):
    """As third parties wrote them for 0.2."""

    decoder_states = "transformer"

    def __init__(self, token_list, embed_size, state_size, weight=1.0):
        super().__init__()

    def forward(self, embeddings, states, lengths, ys_pad, ys_pad_lens):
        return DistillOutput()


def test_a_class_of_02_is_refused_and_says_how_to_change(monkeypatch):
    monkeypatch.setitem(criterion_choices.classes, "old", OfVersion02)
    with pytest.raises(
        UserError, match=r"as in version 0\.2: .*own_criterion\.md"
    ) as e:
        tiny_model(model_conf={"criterion": "old"})
    assert "\n" not in str(e.value) and "forward(self, taps)" in str(e.value)
    with pytest.raises(UserError, match=r"as in version 0\.2"):
        OfVersion02.check({"weight": 2.0}, CheckContext())


def test_registering():
    assert criterion_choices.get_class("Mean_Frame") is MeanFrame
    # A module that is imported twice is no conflict; another class is one.
    criterion_choices.register("recorder")(recorder.Recorder)
    for name in ("hkd", "HKD", "none"):
        with pytest.raises(UserError, match="is taken"):
            criterion_choices.register(name)(Recorder)
    with pytest.raises(UserError, match="is no AbsDistillCriterion"):
        criterion_choices.register("linear")(torch.nn.Linear)
    assert criterion_choices.get_class("hkd") is HKDCriterion


def test_the_default_check_looks_at_options_and_taps():
    class NeedsFired(Recorder):
        wants = frozenset({"fired"})

        def __init__(self, student, weight, layer=1):
            super().__init__(student)

    assert NeedsFired.check({"weight": 1}, CheckContext("cif")) == []
    assert NeedsFired.check({"weight": 1}, CheckContext("a_user's_own")) == []
    for conf, model, message in (
        ({}, "cif", "missing a required argument: 'weight'.* weight, layer"),
        ({"weight": 1, "wight": 2}, "cif", "'wight'"),
        ({"weight": 1}, "hybrid", "NeedsFired needs fired vectors; model: hybrid has"),
    ):
        with pytest.raises(UserError, match=message):
            NeedsFired.check(conf, CheckContext(model))


@pytest.mark.parametrize(
    ("model", "conf", "message"),
    [
        ("hybrid", {}, "criterion hkd needs fired vectors; model: hybrid has none"),
        (
            "hybrid",
            {"acoustic": None, "linguistic": {"states": "joined"}},
            "needs the tap 'states:joined'; model: hybrid has none",
        ),
    ],
)
def test_hkd_knows_before_stage_1_which_model_it_fits(bert, model, conf, message):
    conf = {"teacher": bert, "teacher_dim": HIDDEN, **conf}
    assert HKDCriterion.check(conf, CheckContext("cif")) == []
    with pytest.raises(UserError, match=message):
        HKDCriterion.check(conf, CheckContext(model))
    assert (
        HKDCriterion.check(
            {**conf, "acoustic": None, "linguistic": {}}, CheckContext(model)
        )
        == []
    )
