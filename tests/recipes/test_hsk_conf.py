"""HSK's configurations: four systems that differ in the criterion only."""

import four_systems
import hsk_fixture as fixture
import pytest
from configured_model import build
from four_systems import SYSTEMS, load, weights

CONF = fixture.RECIPE / "conf"
# As many as the training text has, and the three that are no characters.
TOKENS = ["<blank>", "<unk>", *(chr(0x4E00 + n) for n in range(1750)), "<sos/eos>"]


def test_the_four_differ_in_the_weights_of_hkd_only() -> None:
    four_systems.check_values(CONF, acoustic=0.3, linguistic=0.03)
    four_systems.check_lines(CONF)


@pytest.mark.parametrize("name", [*SYSTEMS, "cif_streaming", "cif_one_pass"])
def test_espnet_builds_the_model(name: str) -> None:
    model = build(CONF / f"train_asr_{name}.yaml", TOKENS)
    needed = sum(
        tensor.numel()
        for key, tensor in model.state_dict().items()
        if not key.startswith(("criterion.", "nar."))
    )
    assert 3.0e6 < needed < 5.0e6
    acoustic, linguistic = weights(load(CONF, name))
    projections = [
        key
        for key in model.state_dict()
        if key.startswith("criterion.") and key.endswith("weight")
    ]
    assert len(projections) == (acoustic > 0) + (linguistic > 0)


def test_a_syllable_has_a_frame_of_its_own() -> None:
    """80 ms a frame: 0.2 s of the fastest syllable hold two."""
    conf = load(CONF, "cif")
    frontend, encoder = conf["frontend_conf"], conf["encoder_conf"]
    assert encoder["input_layer"] == "conv2d_stride2"
    halvings = 1 + len(encoder["pooling_layers"])
    frame = frontend["hop_length"] * 2**halvings / frontend["fs"]
    assert frame == pytest.approx(0.08)
    masked = conf["specaug_conf"]["time_mask_width_range"][1]
    assert masked * frontend["hop_length"] / frontend["fs"] <= 0.2


def test_espnet_knows_every_option_of_the_language_model() -> None:
    four_systems.check_language_model(CONF, TOKENS)


def test_espnet_knows_every_option_of_decoding() -> None:
    four_systems.check_decoding(CONF)


def test_the_streaming_model_differs_in_what_streaming_needs() -> None:
    four_systems.check_streaming(CONF)


def test_the_one_pass_decoder_has_the_size_of_the_other() -> None:
    ours, one_pass = load(CONF, "cif"), load(CONF, "cif_one_pass")
    assert one_pass.pop("freeze_param") == ["encoder", "decoder", "ctc"]
    added = one_pass["model_conf"].pop("nar_conf")
    assert added.items() <= ours["decoder_conf"].items()
    for key in ("nar_weight", "nar_distill_weight"):
        assert one_pass["model_conf"].pop(key) > 0
    for conf in (ours, one_pass):
        conf["scheduler_conf"].pop("warmup_steps")
        conf.pop("max_epoch")
    assert one_pass.pop("best_model_criterion") == [["valid", "acc_nar", "max"]]
    ours.pop("best_model_criterion")
    assert one_pass == ours


def test_the_model_for_sherpa_onnx_has_the_frames_of_the_others() -> None:
    ours, sherpa = load(CONF, "cif_one_pass"), load(CONF, "cif_sherpa")
    plain = load(CONF, "cif")
    assert (sherpa.pop("frontend"), ours.pop("frontend")) == ("kaldi_fbank", "default")
    kaldi, default = sherpa.pop("frontend_conf"), ours.pop("frontend_conf")
    assert {name: kaldi[name] for name in ("fs", "n_mels")}.items() <= default.items()
    # sherpa-onnx computes frames every 10 ms.
    assert "frame_shift" not in kaldi
    assert kaldi["skip"] * 0.01 == default["hop_length"] / default["fs"]
    ours.pop("freeze_param")
    ours["model_conf"].pop("nar_distill_weight")
    for key in ("scheduler_conf", "max_epoch"):
        assert sherpa.pop(key) == plain[key] and ours.pop(key)
    assert sherpa == ours
