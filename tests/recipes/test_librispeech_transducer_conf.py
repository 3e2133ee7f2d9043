"""LibriSpeech's configurations of transducers and of pre-training."""

import re
from typing import Any

import configured_model
import librispeech_fixture as fixture
import pytest
import torch
import yaml

CONF = fixture.RECIPE / "conf"
SYSTEMS = ("transducer", "transducer_streaming")
PRETRAINING = {"transducer": "pretrain", "transducer_streaming": "pretrain_streaming"}
CHUNKS = {"chunk_size", "left_chunks", "decoding_chunk_size"}
COMMIT = re.compile("[0-9a-f]{40}")


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONF / f"{name}.yaml").read_text("utf-8"))
    return found


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_encoder_is_the_pretrained_one(system: str) -> None:
    first = load(f"{PRETRAINING[system]}_100")
    second = load(f"train_asr_{system}_100")
    for part in ("frontend", "specaug", "normalize", "encoder"):
        for key in (part, f"{part}_conf"):
            assert first.get(key) == second.get(key), key
    assert first["specaug_conf"]["apply_time_warp"] is False


@pytest.mark.parametrize(
    "names",
    [
        ("pretrain_100", "pretrain_streaming_100"),
        ("train_asr_transducer_100", "train_asr_transducer_streaming_100"),
    ],
)
def test_what_streaming_changes(names: tuple[str, str]) -> None:
    offline, streaming = map(load, names)
    assert offline.pop("normalize") == "utterance_mvn" and offline.pop("normalize_conf")
    assert streaming.pop("normalize") is None
    chunks = {key: streaming["encoder_conf"].pop(key) for key in CHUNKS}
    assert chunks["decoding_chunk_size"] in chunks["chunk_size"]
    if "criteria" in streaming["model_conf"]:
        assert streaming["model_conf"]["criteria"]["speech"].pop("delay") > 0
    assert streaming == offline


def test_teachers_are_pinned_and_stored() -> None:
    (criterion,) = load("pretrain_100")["model_conf"]["criteria"].values()
    teachers = criterion["teachers"]
    assert set(teachers) == {"wavlm", "whisper"}
    for one in teachers.values():
        assert one["teacher_store"] and one["teacher_dim"]
    assert COMMIT.fullmatch(teachers["whisper"]["teacher_revision"])
    run_sh = (fixture.RECIPE / "run.sh").read_text()
    wavlm = re.search(
        r"microsoft/wavlm-large \\\n\s+(\w+) (\S+)$", run_sh, re.MULTILINE
    )
    assert wavlm is not None and COMMIT.fullmatch(wavlm[1])
    assert wavlm[2] == teachers["wavlm"]["teacher"]


def build(name: str) -> Any:
    words = [f"▁W{n}" for n in range(497)]
    with torch.device("meta"):
        return configured_model.build(
            CONF / f"{name}.yaml", ["<blank>", "<unk>", *words, "<sos/eos>"]
        )


@pytest.mark.parametrize("system", SYSTEMS)
def test_espnet_builds_the_transducer(system: str) -> None:
    model = build(f"train_asr_{system}_100")
    count = sum(p.numel() for p in model.parameters())
    readme = (fixture.RECIPE / "README.md").read_text("utf-8")
    assert f"| `train_asr_{system}_100.yaml` |" in readme
    assert f"{count:,}" in readme


def test_the_latency_is_that_of_the_readme() -> None:
    from espnet_cif_hkd.encoder.geometry import algorithmic_latency, known_frame_times

    model = build("train_asr_transducer_streaming_100")
    times = known_frame_times(model, 16000)
    assert times is not None and times.stride == pytest.approx(0.04)
    latency = algorithmic_latency(model, 16000)
    readme = " ".join((fixture.RECIPE / "README.md").read_text("utf-8").split())
    assert f"at most {latency:.2f} s" in readme


def test_a_batch_is_what_it_says() -> None:
    for system in SYSTEMS:
        for name in (f"{PRETRAINING[system]}_100", f"train_asr_{system}_100"):
            conf = load(name)
            text = " ".join((CONF / f"{name}.yaml").read_text("utf-8").split())
            batch = conf["batch_bins"] * conf["accum_grad"] / 16000  # seconds
            assert batch == 10 * 60 and "over all GPUs: ten minutes." in text
            said = {100.6: r"about ([\d,]+) updates # per epoch of 100 hours"}
            if name.startswith("pretrain"):
                said[960.9] = r"# ([\d,]+) of 960 hours"
            for hours, words in said.items():
                (updates,) = re.findall(words, text)
                computed = pytest.approx(hours * 3600 / batch, rel=0.01)
                assert int(updates.replace(",", "")) == computed
