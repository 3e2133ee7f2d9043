"""LibriSpeech's configurations: what they share, and what ESPnet makes of them."""

import re
from typing import Any

import librispeech_fixture as fixture
import pytest
import torch
import yaml

CONF = fixture.RECIPE / "conf"
SYSTEMS = ("cif", "cif_acd", "cif_lrd", "cif_hkd")
VARIANTS = ("cif_hkd_e_branchformer", "cif_hkd_wordpiece")
# BPE 5,000 has as many; so has the list of bert-base-uncased's pieces.
UNITS = {"bpe": 5_000, "wordpiece": 26_508}


def _conf(name: str) -> dict[str, Any]:
    text = (CONF / f"train_asr_{name}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def _weights(conf: dict[str, Any]) -> tuple[float, float]:
    criterion = conf["model_conf"].get("criterion_conf")
    if conf["model_conf"]["criterion"] is None:
        assert criterion is None
        return 0.0, 0.0
    return criterion["acoustic"]["weight"], criterion["linguistic"]["weight"]


def test_the_four_differ_in_the_weights_of_hkd_only() -> None:
    weights = {name: _weights(_conf(name)) for name in SYSTEMS}
    assert weights == {
        "cif": (0.0, 0.0),
        "cif_acd": (1.0, 0.0),
        "cif_lrd": (0.0, 0.01),
        "cif_hkd": (1.0, 0.01),
    }
    rests, criteria = [], []
    for name in SYSTEMS:
        conf = _conf(name)
        conf["model_conf"].pop("criterion")
        criterion = conf["model_conf"].pop("criterion_conf", None)
        rests.append(conf)
        if criterion is not None:
            criterion["acoustic"].pop("weight")
            criterion["linguistic"].pop("weight")
            criteria.append(criterion)
    assert all(rest == rests[0] for rest in rests)
    assert all(criterion == criteria[0] for criterion in criteria)
    assert re.fullmatch("[0-9a-f]{40}", criteria[0]["teacher_revision"])


def test_the_four_files_share_their_lines() -> None:
    shared = []
    for name in SYSTEMS:
        lines = (CONF / f"train_asr_{name}.yaml").read_text().splitlines()
        cut = next(n for n, line in enumerate(lines) if "    criterion:" in line)
        rest = next(n for n, line in enumerate(lines) if line.startswith("optim:"))
        shared.append(lines[1:cut] + lines[rest:])
    assert all(lines == shared[0] for lines in shared)


def test_what_the_variants_change() -> None:
    hkd, other = _conf("cif_hkd"), _conf("cif_hkd_e_branchformer")
    for conf in (hkd, other):
        conf.pop("encoder"), conf.pop("encoder_conf")
    assert other == hkd
    hkd, other = _conf("cif_hkd"), _conf("cif_hkd_wordpiece")
    criterion = other["model_conf"]["criterion_conf"]
    assert criterion.pop("token_type") == "hugging_face"
    assert other == hkd


def test_a_batch_is_what_it_says() -> None:
    conf = _conf("cif_hkd")
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
    halves = sum(weight > 0 for weight in _weights(_conf(name)))
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
