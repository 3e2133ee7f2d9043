"""FOTAQ's configurations with speech teachers: pre-training and frozen Whisper."""

from pathlib import Path
from typing import Any

import configured_model
import fotaq_fixture as fixture
import pytest
import yaml
from four_systems import load
from tiny_whisper import build_tiny_whisper

CONF = fixture.RECIPE / "conf"
RATE = 11025


CHUNKS = {"chunk_size", "left_chunks", "decoding_chunk_size"}


def pretrain(name: str = "pretrain") -> dict[str, Any]:
    text = (CONF / f"{name}.yaml").read_text("utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@pytest.mark.parametrize(
    ("name", "system"),
    [
        *(("pretrain", one) for one in ("cif", "cif_hkd", "att", "transducer")),
        *(("pretrain_streaming", f"{one}_streaming") for one in ("cif", "transducer")),
    ],
)
def test_the_encoder_is_that_of_the_systems_that_start_from_it(
    name: str, system: str
) -> None:
    first, second = pretrain(name), load(CONF, system)
    for part in ("frontend", "specaug", "normalize", "encoder"):
        assert first[part] == second[part]
        assert first.get(f"{part}_conf") == second.get(f"{part}_conf")
    assert first["specaug_conf"]["apply_time_warp"] is False


def test_what_streaming_changes() -> None:
    offline, streaming = pretrain(), pretrain("pretrain_streaming")
    assert streaming["model_conf"]["criteria"]["speech"].pop("delay") > 0
    pairs = [
        (offline, streaming),
        (load(CONF, "transducer"), load(CONF, "transducer_streaming")),
    ]
    for alone, chunked in pairs:
        assert alone.pop("normalize") == "utterance_mvn"
        assert chunked.pop("normalize") is None  # run.sh: --feats_normalize global_mvn
        chunks = {key: chunked["encoder_conf"].pop(key) for key in CHUNKS}
        assert chunks["decoding_chunk_size"] in chunks["chunk_size"]
        assert chunked == alone


def test_every_teacher_has_a_store_and_the_rate_of_the_recordings() -> None:
    (criterion,) = pretrain()["model_conf"]["criteria"].values()
    teachers = list(criterion["teachers"].values())
    assert criterion["type"] == "frames" and len(teachers) == 2
    for key in ("teacher", "teacher_store"):
        assert len({one[key] for one in teachers}) == 2
    assert {one["rate"] for one in teachers} == {RATE}
    run_sh = (fixture.RECIPE / "run.sh").read_text()
    assert f"--fs {RATE}" in run_sh


def test_the_whisper_systems_differ_in_the_criterion_only() -> None:
    alone, hkd = load(CONF, "cif_whisper"), load(CONF, "cif_whisper_hkd")
    text = load(CONF, "cif_hkd")["model_conf"]
    assert hkd["model_conf"].pop("criterion") == text["criterion"] == "hkd"
    criterion = hkd["model_conf"].pop("criterion_conf")
    # Epochs are short here, so MiniLM runs once for each text instead of in each step.
    assert criterion.pop("teacher_store") and criterion == text["criterion_conf"]
    assert alone == hkd
    lines = [
        (CONF / f"train_asr_{name}.yaml").read_text("utf-8").splitlines()
        for name in ("cif_whisper", "cif_whisper_hkd")
    ]
    assert set(lines[0]) - set(lines[1]) <= {line for line in lines[0] if "#" in line}
    # The pre-training reads Whisper without silence, so it needs a store of its own.
    (frames,) = pretrain()["model_conf"]["criteria"].values()
    conf = alone["frontend_conf"]
    assert conf["fs"] == RATE and conf["pad"] == 0.5
    for one in frames["teachers"].values():
        assert "pad" not in one and one["teacher_store"] != conf["teacher_store"]


@pytest.mark.parametrize("end", ["", "_hkd"])
def test_the_systems_of_sub_words_differ_in_the_firing_only(end: str) -> None:
    letters, pieces = (
        load(CONF, f"cif_whisper{end}"),
        load(CONF, f"cif_whisper_bpe{end}"),
    )
    conf = pieces["model_conf"]
    guide = {key: conf.pop(key) for key in list(conf) if key.startswith("ctc_guide_")}
    assert guide == {
        "ctc_guide_weight": 1.0,
        "ctc_guide_kind": "spikes",
        "ctc_guide_scaling": "segments",
        "ctc_guide_firing": "spikes",
        "ctc_guide_start": 300,
    }
    if end:  # vectors of other units
        stores = [
            one["model_conf"]["criterion_conf"].pop("teacher_store")
            for one in (letters, pieces)
        ]
        assert stores[0] != stores[1]
    assert letters == pieces


def test_whispers_decoder_reads_the_features_of_the_whisper_systems() -> None:
    alone, decoder = load(CONF, "cif_whisper"), load(CONF, "cif_whisper_decoder")
    assert alone["frontend_conf"] == decoder["frontend_conf"]
    small = decoder["encoder_conf"]
    assert (small["encoder"], small["encoder_conf"]) == (
        alone["encoder"],
        alone["encoder_conf"],
    )
    assert alone["normalize"] is decoder["normalize"] is None


def build(path: Path) -> Any:
    """The model of a configuration, made by ESPnet."""
    tokens = ["<blank>", "<unk>", "<space>", *"ABC'", "<sos/eos>"]
    return configured_model.build(path, tokens)


@pytest.fixture
def whispers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Tiny Whispers where the recipe keeps its models: folder → width."""
    monkeypatch.chdir(tmp_path)
    widths = {"downloads/whisper_base": 12, "downloads/whisper_tiny_en": 8}
    for seed, (folder, width) in enumerate(widths.items()):
        build_tiny_whisper(Path(folder), seed, width)
    return widths


@pytest.mark.parametrize(
    "name", [f"cif_whisper{bpe}{hkd}" for bpe in ("", "_bpe") for hkd in ("", "_hkd")]
)
def test_espnet_builds_the_whisper_systems(whispers: dict[str, int], name: str) -> None:
    model = build(CONF / f"train_asr_{name}.yaml")
    assert model.frontend.output_size() == whispers["downloads/whisper_base"]
    assert not any(key.startswith("frontend.") for key in model.state_dict())
    heads = [key for key in model.state_dict() if key.startswith("criterion.")]
    assert bool(heads) == name.endswith("hkd")


def test_espnet_builds_whispers_decoder(
    whispers: dict[str, int], tmp_path: Path
) -> None:
    config = load(CONF, "cif_whisper_decoder")
    config["decoder_conf"] |= {"size": 12, "attention_heads": 2, "num_blocks": 1}
    path = tmp_path / "here.yaml"
    path.write_text(yaml.safe_dump(config))
    model = build(path)
    assert model.encoder.output_size() == 12 + 192
    assert model.decoder.output_layer.weight.shape == (8, 12)


@pytest.mark.parametrize("end", ["", "_streaming"])
def test_espnet_builds_the_pretraining(whispers: dict[str, int], end: str) -> None:
    model = build(CONF / f"pretrain{end}.yaml")
    heads = model.criteria["speech"].heads
    assert {head.out_features for head in heads.values()} == set(whispers.values())
    ours = {key for key in model.state_dict() if key.startswith("encoder.")}
    other = build(CONF / f"train_asr_transducer{end}.yaml").state_dict()
    assert ours == {key for key in other if key.startswith("encoder.")}
