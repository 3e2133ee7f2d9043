"""LibriSpeech: pre-training on all audio, then transducers, on a miniature corpus."""

import importlib
import sys
from pathlib import Path
from typing import Any

import librispeech_fixture as fixture
import pytest
import yaml
from miniature.english import english
from miniature.librispeech import COUNTS, write_librispeech
from miniature.speech import Clip
from recorded_recipe import RecordedRecipe
from tiny_speech_teachers import WIDTH, build_tiny_speech

from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe.cli import main
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.store.reader import StoreReader

pytestmark = pytest.mark.slow
EXP = Path("exp/100h")
TRAINING = sum(n for part, n in COUNTS.items() if part.startswith("train"))
DEV = COUNTS["dev-clean"] + COUNTS["dev-other"]


def _shrink(path: Path) -> None:
    """Make a configuration of the recipe small, and nothing else of it different."""
    conf: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    conf["encoder_conf"].update(
        output_size=16, attention_heads=2, linear_units=16, num_blocks=2
    )
    conf["encoder_conf"].update(pooling_layers=[1], input_channels=4)
    conf.update(batch_bins=2_000_000, num_workers=0, use_amp=False, max_epoch=1)
    conf.update(use_matplotlib=False, use_tensorboard=False)
    if "decoder_conf" in conf:
        conf["decoder_conf"].update(hidden_size=16)
        conf["joint_net_conf"].update(joint_space_size=16)
        conf.update(num_att_plot=0)
    else:
        (criterion,) = conf["model_conf"]["criteria"].values()
        whisper = {"teacher": "downloads/whisper", "teacher_revision": None}
        criterion["teachers"]["whisper"].update(whisper)
        criterion["teachers"]["wavlm"].update(layer=2)
        for teacher in criterion["teachers"].values():
            teacher["teacher_dim"] = WIDTH
    path.write_text(yaml.safe_dump(conf))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> RecordedRecipe:
    """The recipe with a miniature corpus, tiny teachers and small configurations."""
    recipe = RecordedRecipe(
        "librispeech", tmp_path_factory.mktemp("librispeech") / "recipe"
    )
    downloads = recipe.folder / "downloads"
    count = sum(COUNTS.values())
    clips = english(count)
    # No two are equal, because a store has equal recordings once.
    parts = [clips[n % len(clips)] for n in range(count)]
    louder = [Clip(c.words, c.samples * (1 - n / 100)) for n, c in enumerate(parts)]
    write_librispeech(downloads, louder)
    # Where run.sh would convert the real one, which it does not if it is there.
    build_tiny_speech(downloads / "wavlm_large", "wavlm")
    build_tiny_speech(downloads / "whisper", "whisper")
    for path in recipe.folder.glob("conf/*_100.yaml"):
        _shrink(path)
    return recipe


def _run(recipe: RecordedRecipe, *arguments: str) -> None:
    """Do in this process what ``./run.sh`` calls."""
    few = [*("--ngpu", "0", "--nj", "1", "--inference_nj", "1", "--nbpe", "40")]
    done = recipe.run(*arguments, *few, "--incomplete", "true")
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(recipe.folder)
        patch.setenv("PYTHON", sys.executable)
        for name, *words in recipe.calls():
            if name == "asr.sh":
                code = main([*words, "--test_sets", "test_clean"])
            elif words[0] == "-m":
                code = importlib.import_module(words[1]).main(words[2:])
            else:
                code = fixture.load(Path(words[0]).stem).main(words[1:])
            assert not code, words


@pytest.fixture(scope="module")
def streaming(recipe: RecordedRecipe) -> RecordedRecipe:
    """After stages 1 to 13 of a streaming transducer with unlabelled speech."""
    system = ["--system", "transducer_streaming", "--pretrain", "true"]
    _run(
        recipe,
        *(*system, "--unlabelled", "true", "--pretrain_args", "--max_epoch 1"),
        *("--stop_stage", "13", "--inference_tag", "decoded"),
        *("--inference_args", "--beam_size 1"),
    )
    return recipe


def _stored(name: str) -> int:
    return len(StoreReader(Path("dump") / name, Payload("frames", WIDTH, "int8")))


def _config(exp: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((exp / "config.yaml").read_text())
    return found


def test_all_audio_teaches_the_streaming_encoder(
    streaming: RecordedRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(streaming.folder)
    scp = read_table("dump/100h/raw/unlabelled/wav.scp")
    assert len(scp) == TRAINING
    assert len(read_table("dump/100h/raw/train_clean_100/text")) == 16
    for store in ("wavlm_large_layer21", "whisper_large_v2"):
        assert _stored(store) == TRAINING + DEV
    first = EXP / "asr_pretrain_streaming_unlabelled"
    second = EXP / f"asr_transducer_streaming_{first.name.removeprefix('asr_')}"
    for one in (_config(first), _config(second)):
        assert one["normalize"] == "global_mvn"
        assert one["encoder_conf"]["decoding_chunk_size"] == 16
    # Both stages read one file of statistics.
    stats = [_config(exp)["normalize_conf"]["stats_file"] for exp in (first, second)]
    assert stats[0] == stats[1] and Path(stats[0]).is_file()
    log = (second / "train.log").read_text()
    assert f"Loading pretrained params from {first}/valid.loss.ave.pth" in log
    assert "its input has another scale" not in log
    decoded = second / "decoded/test_clean"
    assert set(read_table(decoded / "text")) == set(read_table("data/test_clean/text"))
    assert "|decoded/test_clean|" in (second / "RESULTS.md").read_text()


def test_labelled_audio_alone(
    streaming: RecordedRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages 1 and 2 of the other transducer use the data and stores that are there."""
    monkeypatch.chdir(streaming.folder)
    before = _stored("whisper_large_v2")
    words = ["--system", "transducer", "--pretrain", "true"]
    _run(streaming, *words, "--stage", "10", "--stop_stage", "11")
    assert _stored("whisper_large_v2") == before
    second = EXP / "asr_transducer_pretrain"
    log = (second / "train.log").read_text()
    best = EXP / "asr_pretrain/valid.loss.ave.pth"
    assert f"Loading pretrained params from {best}" in log
    assert _config(second)["normalize"] == "utterance_mvn"
    assert (second / "train.total_count.ave.pth").is_file()
