"""The AISHELL-1 recipe on a miniature, stages 1 to 14, in this process."""

import os
import shutil
import zipfile
from pathlib import Path

import aishell_fixture as fixture
import pytest
import soundfile
import torch
import yaml
from miniature.aishell import Miniature, write_aishell
from miniature.speech import mandarin
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe.cli import main

pytestmark = pytest.mark.slow
EXP = Path("exp/asr_tiny")
DECODED = EXP / "decode_tiny"
# What makes the model small and the run short; everything else is the recipe's own.
SMALLER = (
    "--encoder_conf output_size=16 --encoder_conf attention_heads=2 "
    "--encoder_conf linear_units=16 --encoder_conf num_blocks=3 "
    "--encoder_conf pooling_layers=[1,2] "
    "--decoder_conf attention_heads=2 --decoder_conf linear_units=16 "
    "--decoder_conf num_blocks=1 --max_epoch 3 --keep_nbest_models 2 "
    "--num_workers 0 --num_att_plot 0 --use_matplotlib false --use_tensorboard false"
)
SMALLER_LM = (
    "--lm_conf layer=1 --lm_conf att_unit=8 --lm_conf unit=8 --lm_conf embed_unit=8 "
    "--lm_conf head=2 --max_epoch 1 --num_workers 0 --use_matplotlib false"
)


def _run(teacher: str, *more: str) -> int:
    """The command line of ``run.sh --system hkd --use_lm true``, made small."""
    asr_args = (
        f"{SMALLER} --model_conf criterion_conf.teacher={teacher} "
        f"--model_conf criterion_conf.teacher_dim={HIDDEN} "
        "--model_conf criterion_conf.teacher_store=data/teacher"
    )
    options = {
        "ngpu": "0",
        "skip_packing": "false",
        "asr_tag": "tiny",
        "lm_tag": "tiny",
        "inference_tag": "decode_tiny",
        "asr_args": asr_args,
        "lm_args": SMALLER_LM,
        "inference_args": "--beam_size 2",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    system = ["--system", "hkd", "--use_lm", "true"]
    return main(fixture.options_of_run_sh(Path.cwd(), *system, *words, *more))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_tiny_bert(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, teacher: str
) -> tuple[Path, Miniature]:
    """The recipe after stages 1 to 14, and the corpus it was run on."""
    folder = fixture.lay_out(tmp_path_factory.mktemp("aishell"))
    made = write_aishell(folder / "downloads", mandarin(16))
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert _run(teacher) == 0
    finally:
        os.chdir(before)
    return folder, made


@pytest.fixture(autouse=True)
def inside(
    finished: tuple[Path, Miniature], monkeypatch: pytest.MonkeyPatch
) -> Miniature:
    monkeypatch.chdir(finished[0])
    return finished[1]


@pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")
def test_every_stage_leaves_its_files(inside: Miniature) -> None:
    for path in (
        Path("data/zh_token_list/char/tokens.txt"),
        Path("exp/lm_tiny/valid.loss.ave.pth"),
        Path("exp/lm_tiny/perplexity_test/ppl"),
        Path("exp/asr_stats_raw_zh_char/train/speech_shape"),
        EXP / "train.total_count.ave.pth",
        EXP / "RESULTS.md",
        DECODED / "test/score_cer/result.txt",
        DECODED / "org/dev/score_cer/result.txt",
    ):
        assert path.is_file() and path.stat().st_size > 0, path
    tokens = Path("data/zh_token_list/char/tokens.txt").read_text().splitlines()
    characters = {c for text in inside.texts["train"].values() for c in text}
    assert tokens[:2] == ["<blank>", "<unk>"] and tokens[-1] == "<sos/eos>"
    assert set(tokens[2:-1]) == characters


def test_sound_and_words_stay_what_they_were(inside: Miniature) -> None:
    for name in ("train", "dev", "test"):
        folder = Path("dump/raw") / name
        assert read_table(folder / "text") == inside.texts[name]
        scp = read_table(folder / "wav.scp")
        source = read_table(f"data/{name}/wav.scp")
        for utterance, path in scp.items():
            ours, rate = soundfile.read(path, dtype="int16")
            theirs, _ = soundfile.read(source[utterance], dtype="int16")
            assert rate == 16_000 and (ours == theirs).all()


def test_it_trained_what_the_configuration_says() -> None:
    config = yaml.safe_load((EXP / "config.yaml").read_text())
    assert config["encoder"] == "cif_conformer"
    assert config["encoder_conf"]["input_layer"] == "conv2d_stride2"
    assert config["normalize_conf"] == {"norm_means": True, "norm_vars": True}
    assert config["scheduler"] == "tristagelr" and config["use_amp"] is True
    log = (EXP / "train.log").read_text()
    assert "loss_acd=" in log and "loss_lrd=" in log and "acc_acd=" in log


def test_decoding_averages_the_last_epochs() -> None:
    average = torch.load(EXP / "train.total_count.ave.pth")
    last = [torch.load(EXP / f"{epoch}epoch.pth") for epoch in (2, 3)]
    assert not (EXP / "1epoch.pth").exists()
    name = next(key for key in average if key.endswith("output_layer.weight"))
    torch.testing.assert_close(average[name], (last[0][name] + last[1][name]) / 2)
    assert not torch.equal(last[0][name], last[1][name])
    log = (DECODED / "test/logdir/asr_inference.1.log").read_text()
    assert "train.total_count.ave.pth" in log


def test_the_teacher_has_one_set_of_vectors_for_a_text(inside: Miniature) -> None:
    texts = {*inside.texts["train"].values(), *inside.texts["dev"].values()}
    log = (EXP / "dump_teacher.log").read_text()
    assert f"data/teacher: {len(texts)} sentences (" in log


def test_copies_by_speed_perturbation_share_the_vectors(
    teacher: str, inside: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(Path.cwd(), tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    options = {
        "speed_perturb_factors": "0.9 1.0 1.1",
        "stage": "2",
        "stop_stage": "10",
        "skip_stages": "6 7 8",
        "asr_tag": "sp",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    assert _run(teacher, *words) == 0
    copies = read_table("dump/raw/train_sp/text")
    assert len(copies) == 3 * len(inside.texts["train"])
    log = Path("exp/asr_sp/dump_teacher.log").read_text()
    assert "data/teacher: 0 sentences (0 tokens) added" in log


def test_every_utterance_is_decoded_and_scored(inside: Miniature) -> None:
    for folder, name in ((DECODED / "test", "test"), (DECODED / "org/dev", "dev")):
        assert set(read_table(folder / "text")) == set(inside.texts[name])
        references = (folder / "score_cer/ref.trn").read_text().splitlines()
        first = sorted(inside.texts[name])[0]
        words = " ".join(inside.texts[name][first])
        assert references[0] == f"{words}\t({inside.speakers[name][first]}-{first})"


def test_the_packed_model_is_the_average() -> None:
    archives = list(EXP.glob("*.zip"))
    assert len(archives) == 1
    with zipfile.ZipFile(archives[0]) as packed:
        names = packed.namelist()
        assert any(n.endswith("train.total_count.ave_2best.pth") for n in names)
        assert {"meta.yaml"} <= set(names)


def test_a_second_run_reuses_everything(
    teacher: str, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    model = (EXP / "checkpoint.pth").stat().st_mtime_ns
    assert _run(teacher, "--reuse", "true") == 0
    printed = capfd.readouterr().out
    for stage in (1, 4, 5, 6, 7, 8, 10, 11, 12):
        assert any(
            f" stage {stage} " in line and "reused" in line
            for line in printed.splitlines()
        ), stage
    assert (EXP / "checkpoint.pth").stat().st_mtime_ns == model
