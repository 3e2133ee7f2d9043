"""``model: pretrain``: what it needs, what it learns, and what starts from it."""

import argparse
import copy

import numpy as np
import pytest
import torch
from espnet2.torch_utils.load_pretrained_model import load_pretrained_model
from espnet_parts import HYBRID
from tiny_model import TOKENS
from tone_teacher import host_model, pretrain_model, speech_batch, texts_of, tone

from espnet_cif_hkd.distill import (
    AbsDistillCriterion,
    DistillOutput,
    criterion_choices,
)
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.models.pretrain_task import PretrainTask

ONE = {"one": tone()}
MVN = {"normalize": "utterance_mvn", "normalize_conf": {}}


def test_the_encoder_is_all_that_is_trained():
    model = pretrain_model(ONE)
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {"encoder", "criteria"}
    # --init_param FILE:encoder:encoder takes all keys that begin with "encoder".
    keys = [key for key in model.state_dict() if key.startswith("encoder")]
    assert keys == [f"encoder.{key}" for key in model.encoder.state_dict()]


def test_texts_change_nothing():
    model = pretrain_model(ONE).train()
    alone = model(**speech_batch())
    both = model(**speech_batch(), **texts_of())
    assert torch.equal(alone[0], both[0]) and alone[1].keys() == both[1].keys()
    feats = model.collect_feats(**speech_batch())
    assert feats["feats"].shape[:2] == (3, int(feats["feats_lengths"].max()))


def test_the_weight_of_a_batch_is_its_frames():
    batch = speech_batch()
    model = pretrain_model(ONE).train()
    hlens = model.encode(batch["speech"], batch["speech_lengths"])[1]
    assert int(model(**batch)[2]) == int(hlens.sum())


def test_a_tap_below_the_top_reaches_each_parameter():
    """Otherwise DDP would wait for the gradients of the upper layers."""
    encoder = pretrain_model(ONE).encoder
    conf = {"output_size": 8, "attention_heads": 2, "linear_units": 16}
    changes = {"encoder_conf": {**conf, "num_blocks": 2, "input_layer": "conv2d"}}
    model = pretrain_model(ONE, changes, tap="layer:1").train()
    model(**speech_batch())[0].backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.encoder.encoders[0].norm1.weight.grad.any()
    assert not model.encoder.encoders[1].norm1.weight.grad.any()
    assert len(encoder.encoders) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": "cif"}, "trains the encoder only, got CIFDecoder; remove decoder"),
        ({"encoder": None, "encoder_conf": {}}, "model: pretrain needs an encoder"),
    ],
)
def test_wrong_configurations(changes, message):
    with pytest.raises(UserError, match=message):
        pretrain_model(ONE, changes)


def test_no_criterion():
    with pytest.raises(UserError, match="has no criterion to learn from; set"):
        host_model("pretrain", {})


def test_a_criterion_for_tokens_is_refused():
    conf = {"type": "hkd", "teacher": "x", "teacher_dim": 4}
    with pytest.raises(UserError, match=r"needs .*; model: pretrain has none"):
        host_model("pretrain", {"text": conf})


def test_a_loss_per_token_is_refused():
    @criterion_choices.register("per_token")
    class PerToken(AbsDistillCriterion):
        def __init__(self, student):
            super().__init__()

        def forward(self, taps):
            return DistillOutput({"loss_x": taps.hs_pad.sum()}, {"loss_x": 1.0})

    try:
        model = host_model("pretrain", {"mine": {"type": "per_token"}})
        with pytest.raises(UserError, match=r"mine\.loss_x is a sum over target tok"):
            model(**speech_batch())
    finally:
        del criterion_choices.classes["per_token"]


@pytest.mark.parametrize("host", ["cif", "hybrid"])
def test_a_recogniser_starts_from_it(host, tmp_path):
    """By ESPnet's own --init_param, exactly, and the rest keeps its own values."""
    model = pretrain_model(ONE, MVN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    path = tmp_path / "valid.loss.ave.pth"
    torch.save(model.state_dict(), path)
    changes = {**(HYBRID if host == "hybrid" else {}), **MVN}
    student = host_model(host, {}, changes)
    before = copy.deepcopy(student.state_dict())
    load_pretrained_model(f"{path}:encoder:encoder", student, False)
    after = student.state_dict()
    for key, value in after.items():
        expected = (
            model.state_dict()[key] if key.startswith("encoder.") else before[key]
        )
        assert torch.equal(value, expected), key
    batch = speech_batch()
    found = student.eval().encode(batch["speech"], batch["speech_lengths"])[0]
    wanted = model.eval().encode(batch["speech"], batch["speech_lengths"])[0]
    assert torch.equal(found, wanted)


def test_normalisation_travels_along(tmp_path):
    """FILE:normalize:normalize, for other statistics in stage 2."""

    def stats(name, scale):
        path = tmp_path / name
        sums = {
            "count": 10,
            "sum": np.full(8, scale),
            "sum_square": np.full(8, scale**2),
        }
        np.savez(path, **sums)
        return {
            "normalize": "global_mvn",
            "normalize_conf": {"stats_file": f"{path}.npz"},
        }

    model = pretrain_model(ONE, stats("a", 2.0))
    torch.save(model.state_dict(), tmp_path / "m.pth")
    student = host_model("cif", {}, stats("b", 7.0))
    assert not torch.equal(student.normalize.mean, model.normalize.mean)
    load_pretrained_model(f"{tmp_path}/m.pth:normalize:normalize", student, False)
    assert torch.equal(student.normalize.mean, model.normalize.mean)


def args_of(**changes):
    args = PretrainTask.get_parser().parse_args([])
    return argparse.Namespace(**{**vars(args), **changes})


def test_the_task_needs_audio_only():
    args = args_of()
    assert args.model == "pretrain" and "token_list" not in args.required
    assert PretrainTask.required_data_names() == ("speech",)
    preprocess = PretrainTask.build_preprocess_fn(args, True)
    samples = np.zeros(5, np.float32)
    given = {"speech": samples, "text": "words without a token list"}
    assert list(preprocess("a", given).items()) == [("speech", samples)]
    plain = PretrainTask.build_preprocess_fn(args_of(use_preprocessor=False), True)
    assert list(plain("a", given).items()) == [("speech", samples)]


def test_the_task_refuses_other_models():
    with pytest.raises(UserError, match="model: cif cannot train without transcripts"):
        PretrainTask.build_model(args_of(model="cif", token_list=TOKENS))
