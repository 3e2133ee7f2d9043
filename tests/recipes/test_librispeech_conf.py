"""LibriSpeech's configurations: what they share, and what ESPnet makes of them."""

import re
from typing import Any

import four_systems
import librispeech_fixture as fixture
import pytest
import torch
import yaml
from four_systems import SYSTEMS, load, weights

CONF = fixture.RECIPE / "conf"
VARIANTS = ("cif_hkd_e_branchformer", "cif_hkd_wordpiece")
# BPE 5,000 has as many; so has the list of bert-base-uncased's pieces.
UNITS = {"bpe": 5_000, "wordpiece": 26_508}


def test_the_four_differ_in_the_weights_of_hkd_only() -> None:
    four_systems.check_values(CONF)
    four_systems.check_lines(CONF)
    criterion = load(CONF, "cif_hkd")["model_conf"]["criterion_conf"]
    assert re.fullmatch("[0-9a-f]{40}", criterion["teacher_revision"])


def test_what_the_variants_change() -> None:
    hkd, other = load(CONF, "cif_hkd"), load(CONF, "cif_hkd_e_branchformer")
    for conf in (hkd, other):
        conf.pop("encoder"), conf.pop("encoder_conf")
    assert other == hkd
    hkd, other = load(CONF, "cif_hkd"), load(CONF, "cif_hkd_wordpiece")
    criterion = other["model_conf"]["criterion_conf"]
    assert criterion.pop("token_type") == "hugging_face"
    assert other == hkd


def test_a_batch_is_what_it_says() -> None:
    conf = load(CONF, "cif_hkd")
    assert conf["batch_bins"] == 4 * 28_000 * conf["frontend_conf"]["hop_length"]
    # 281,241 utterances of 960.9 hours; ESPnet ends a batch after exceeding the bins.
    mean = 960.9 * 3600 * 16_000 / 281_241
    updates = 281_241 / (conf["batch_bins"] // mean + 1)
    assert updates == pytest.approx(3_070, rel=0.01)
    assert conf["max_epoch"] == pytest.approx(240_000 / updates, abs=1)
    assert conf["scheduler_conf"]["max_steps"] == 240_000


def _parsed(name: str) -> Any:
    from espnet2.tasks.asr import ASRTask

    import espnet_cif_hkd

    espnet_cif_hkd.register()
    args = ASRTask.get_parser().parse_args(
        ["--config", str(CONF / f"train_asr_{name}.yaml"), "--output_dir", "unused"]
    )
    count = UNITS["wordpiece" if name.endswith("wordpiece") else "bpe"]
    # A letter before the number: a list of digits would not spell words.
    words = [f"▁W{n}" for n in range(count - 3)]
    if name.endswith("wordpiece"):
        words = [f"##w{n}" for n in range(count - 3)]
    args.token_list = ["<blank>", "<unk>", *words, "<sos/eos>"]
    args.input_size = None
    return args


@pytest.mark.parametrize("name", [*SYSTEMS, *VARIANTS])
def test_espnet_builds_the_model(name: str) -> None:
    from espnet2.tasks.asr import ASRTask

    with torch.device("meta"):
        model = ASRTask.build_model(_parsed(name))
    counts = {"model": 0, "criterion": 0}
    for key, parameter in model.named_parameters():
        kind = "criterion" if key.startswith("criterion.") else "model"
        counts[kind] += parameter.numel()
    readme = (fixture.RECIPE / "README.md").read_text(encoding="utf-8")
    row = re.search(
        rf"^\| `train_asr_{name}\.yaml` \|.*\| ([0-9,]+) \|$", readme, re.MULTILINE
    )
    assert row is not None, f"{counts['model']:,}"
    assert int(row[1].replace(",", "")) == counts["model"]
    halves = sum(weight > 0 for weight in weights(load(CONF, name)))
    assert counts["criterion"] == halves * (512 * 768 + 768)


def test_espnet_knows_every_option_of_the_language_model() -> None:
    from espnet2.tasks.lm import LMTask

    args = LMTask.get_parser().parse_args(
        ["--config", str(CONF / "train_lm.yaml"), "--output_dir", "unused"]
    )
    args.token_list = [str(n) for n in range(UNITS["bpe"])]
    with torch.device("meta"):
        model = LMTask.build_model(args)
    assert 50e6 < sum(p.numel() for p in model.parameters()) < 60e6


@pytest.mark.parametrize("name", ["decode_asr", "decode_asr_lm"])
def test_espnet_knows_every_option_of_decoding(name: str) -> None:
    from espnet2.bin.asr_inference import get_parser

    known = {action.dest for action in get_parser()._actions}
    conf = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert set(conf) <= known
    assert (conf["lm_weight"] > 0) == (name == "decode_asr_lm")
