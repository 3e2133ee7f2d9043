"""The whole engine on a tiny recipe, in this process."""

import importlib.metadata
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_recipe
import yaml
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe import commands, decode, statistics
from espnet_cif_hkd.recipe.cli import main
from espnet_cif_hkd.recipe.decode import real_time_factor
from espnet_cif_hkd.recipe.kaldi_files import read_table, write_table

ROOT = Path(__file__).resolve().parent.parent
# This release of ESPnet decodes several utterances at once.
BATCHES = int(importlib.metadata.version("espnet")) >= 202611
ASR_EXP = Path("exp/asr_asr_raw_en_char")
INFERENCE = ASR_EXP / ("decode_lm_lm_lm_en_char_valid.loss.ave_asr_model_valid.acc.ave")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe after stages 1 to 14 with a language model and a too short clip."""
    folder = tmp_path_factory.mktemp("recipe")
    tiny_recipe.make(folder)
    blip = folder / "sound/test/spk0-test0.wav"
    soundfile.write(blip, np.full(200, 0.1), tiny_recipe.RATE)
    before = Path.cwd()
    os.chdir(folder)
    try:
        code = main(tiny_recipe.options(use_lm="true", lang="en", skip_packing="false"))
    finally:
        os.chdir(before)
    assert code == 0
    return folder


@pytest.fixture
def recipe(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished recipe to be damaged."""
    target = tmp_path / "copy"
    # The tables name the sound files by absolute path, in the original.
    shutil.copytree(finished, target)
    monkeypatch.chdir(target)
    return target


def run(**changed: str) -> int:
    return main(tiny_recipe.options(lang="en", **changed))


def refusal(capfd: pytest.CaptureFixture[str], **changed: str) -> str:
    """The error line of a run that must be refused with status 1."""
    capfd.readouterr()
    assert run(**changed) == 1
    lines = [
        line
        for line in capfd.readouterr().err.splitlines()
        if line.startswith("error: ")
    ]
    assert len(lines) == 1
    return lines[0]


def test_every_stage_leaves_the_files_of_asr_sh(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    stats, lm_stats = Path("exp/asr_stats_raw_en_char"), Path("exp/lm_stats_en_char")
    test = INFERENCE / "test"
    for path in (
        Path("data/en_token_list/char/tokens.txt"),
        Path("dump/raw/lm_train.txt"),
        lm_stats / "train/text_shape.char",
        lm_stats / "valid/text_shape.char",
        Path("exp/lm_lm_en_char/valid.loss.ave.pth"),
        Path("exp/lm_lm_en_char/perplexity_test/ppl"),
        stats / "train/feats_stats.npz",
        stats / "train/speech_shape",
        stats / "valid/text_shape.char",
        stats / "run.sh",
        ASR_EXP / "config.yaml",
        ASR_EXP / "train.log",
        ASR_EXP / "checkpoint.pth",
        ASR_EXP / "valid.acc.ave.pth",
        ASR_EXP / "RESULTS.md",
        ASR_EXP / "asr_asr_raw_en_char_valid.acc.ave.zip",
        test / "score_cer/ref.trn",
        test / "score_wer/result.txt",
        test / "logdir/asr_inference.1.log",
        test / "logdir/calculate_rtf.log",
    ):
        assert path.is_file() and path.stat().st_size > 0, path
    tokens = Path("data/en_token_list/char/tokens.txt").read_text().splitlines()
    assert tokens[:2] == ["<blank>", "<unk>"]
    assert tokens[-1] == "<sos/eos>"
    assert sorted(tokens[2:-1]) == ["<space>", "a", "b"]
    shapes = read_table(stats / "train/text_shape.char")
    assert len(shapes) == 8
    assert shapes["spk0-train0"] == f"2,{len(tokens)}"
    assert not list(Path().rglob(".incomplete-*"))
    assert not list(Path().rglob("*.part"))


def test_a_too_short_clip_stays_as_an_empty_hypothesis(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    folder = INFERENCE / "test"
    texts = read_table(folder / "text")
    assert set(texts) == set(read_table("dump/raw/test/text"))
    assert texts["spk0-test0"] == ""
    references = (folder / "score_cer/ref.trn").read_text().splitlines()
    hypotheses = (folder / "score_cer/hyp.trn").read_text().splitlines()
    assert references[0] == "a b\t(spk0-spk0-test0)"
    assert hypotheses[0] == "\t(spk0-spk0-test0)"
    assert len(references) == len(hypotheses) == 3
    log = (folder / "logdir/calculate_rtf.log").read_text()
    assert float(log.split("RTF: ")[1].split()[0]) > 0


def test_results_and_config(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    results = (ASR_EXP / "RESULTS.md").read_text()
    assert f"## {ASR_EXP}" in results
    assert f"|{INFERENCE.name}/test|3|" in results
    config = yaml.safe_load((ASR_EXP / "config.yaml").read_text())
    assert config["frontend_conf"]["fs"] == "8k"
    assert config["normalize"] == "global_mvn"
    assert config["fold_length"] == [80000, 150]
    assert config["train_shape_file"] == [
        "exp/asr_stats_raw_en_char/train/speech_shape",
        "exp/asr_stats_raw_en_char/train/text_shape.char",
    ]
    script = (ASR_EXP / "run.sh").read_text()
    assert script.startswith("./asr.sh --train_set train")
    assert script.endswith('--stage 11 "$@"; exit $?\n')


def test_a_second_run_reuses_everything(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = (ASR_EXP / "valid.acc.ave.pth").stat().st_mtime_ns
    text = (INFERENCE / "test/text").stat().st_mtime_ns
    assert run(use_lm="true", reuse="true") == 0
    told = capfd.readouterr().out
    for stage in (1, 4, 5, 6, 7, 8, 10, 11, 12):
        assert any(
            line.split(" ", 1)[1].startswith(f"stage {stage} ") and "reused" in line
            for line in told.splitlines()
            if " " in line
        ), stage
    assert (ASR_EXP / "valid.acc.ave.pth").stat().st_mtime_ns == model
    assert (INFERENCE / "test/text").stat().st_mtime_ns == text


def test_training_resumes_and_goes_on(recipe: Path) -> None:
    assert (
        run(stage="11", stop_stage="11", asr_args="--max_epoch 2", asr_exp=str(ASR_EXP))
        == 0
    )
    assert (ASR_EXP / "2epoch.pth").is_file()
    assert (ASR_EXP / "train.1.log").is_file()
    assert "The training was resumed using" in (ASR_EXP / "train.log").read_text()


def test_our_model_and_bpe_with_split_data(recipe: Path) -> None:
    assert (
        run(
            stage="5",
            asr_config="conf/cif.yaml",
            token_type="bpe",
            nbpe="8",
            num_splits_asr="2",
            asr_args="--seed 7",
            inference_args="--beam_size 1",
            batch_size="3" if BATCHES else "1",
            eval_valid_set="true",
        )
        == 0
    )
    folder = Path("data/en_token_list/bpe_unigram8")
    tokens = (folder / "tokens.txt").read_text().splitlines()
    assert tokens[:2] == ["<blank>", "<unk>"] and tokens[-1] == "<sos/eos>"
    assert len(tokens) == 8
    assert (folder / "bpe.model").is_file()
    exp = Path("exp/asr_cif_raw_en_bpe8_seed7")
    decoded = exp / "decode_beam_size1_asr_model_valid.acc.ave"
    assert (exp / "valid.acc.ave.pth").is_file()
    for name in ("test", "org/valid"):
        for kind in ("cer", "wer", "ter"):
            assert (decoded / name / f"score_{kind}" / "result.txt").is_file()
    assert (Path("exp/asr_stats_raw_en_bpe8/splits2") / ".done").is_file()


def test_word_tokens(recipe: Path) -> None:
    assert run(stage="5", stop_stage="5", token_type="word") == 0
    tokens = Path("data/en_token_list/word/tokens.txt").read_text().split()
    assert {"ab", "abba", "a", "b"} < set(tokens)
    assert tokens[-1] == "<sos/eos>"


def in_turn(module: str, jobs: list[tuple[list[str], Path]], what: str) -> None:
    """Runs jobs one after the other in this process, to spare their start-up."""
    for arguments, log_file in jobs:
        commands.call(module, arguments, log_file, what)


def test_several_jobs_equal_one(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = Path("exp/asr_stats_raw_en_char")
    hypotheses = INFERENCE / "test/text"
    once = dict(np.load(stats / "train/feats_stats.npz"))
    shapes = (stats / "train/text_shape.char").read_text()
    text = hypotheses.read_text()
    for module in (statistics, decode):
        monkeypatch.setattr(module, "job_count", lambda *_: 2)
        monkeypatch.setattr(module, "run_jobs", in_turn)
    assert run(use_lm="true", stage="10", stop_stage="10") == 0
    assert run(use_lm="true", stage="12", stop_stage="12") == 0
    assert (stats / "logdir/stats.2.log").is_file()
    assert (INFERENCE / "test/logdir/asr_inference.2.log").is_file()
    twice = np.load(stats / "train/feats_stats.npz")
    for key, value in once.items():
        np.testing.assert_allclose(twice[key], value, rtol=1e-5)
    keys = sorted(shapes.splitlines())
    assert sorted((stats / "train/text_shape.char").read_text().splitlines()) == keys
    assert hypotheses.read_text() == text


def test_jobs_are_processes_with_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "told.py").write_text(
        "import os, sys\nprint(os.environ['OMP_NUM_THREADS'], sys.argv[1])\n"
        "sys.exit(sys.argv[1] == 'bad')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    logs = [tmp_path / f"logs/{number}.log" for number in (1, 2)]
    commands.run_jobs("told", [(["a"], logs[0]), (["b"], logs[1])], "telling")
    assert [log.read_text().splitlines()[-1] for log in logs] == ["1 a", "1 b"]
    with pytest.raises(UserError, match=r"telling failed \(exit status 1\).*2\.log"):
        commands.run_jobs("told", [(["a"], logs[0]), (["bad"], logs[1])], "telling")


def test_real_time_factor(tmp_path: Path) -> None:
    log = tmp_path / "asr_inference.1.log"
    line = "2026-01-01 10:00:0{},{} (asr_inference:1) INFO: {}\n"
    log.write_text(
        line.format(0, "000", "speech length: 16000")
        + line.format(0, "500", "best hypo: A")
        + line.format(1, "000", "speech length: 10")
        + line.format(2, "000", "speech length: 32000")
        + line.format(4, "000", "best hypo: B")
    )
    found = real_time_factor([log], 16000)
    assert found["audio"] == pytest.approx(3.0)
    assert found["decoding"] == pytest.approx(2.5)
    assert found["rtf"] == pytest.approx(2.5 / 3)
    assert found["latency"] == pytest.approx(1250)


# What follows is refused before stage 10, or before the stage whose input is bad.


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"asr_config": "conf/none.yaml"}, "--asr_config conf/none.yaml: there is no"),
        ({"asr_config": "conf/broken.yaml"}, "broken.yaml is not YAML in line 3"),
        ({"asr_config": "conf/list.yaml"}, "must contain 'name: value' lines"),
        ({"asr_config": "conf/unknown.yaml"}, "no_such_option"),
        ({"asr_args": "--no_such_option 1"}, "no_such_option"),
        ({"asr_config": "conf/misfit.yaml"}, "the model cannot be built"),
        ({"asr_config": "conf/pure_ctc.yaml"}, "model_conf.ctc_weight 1"),
        ({"asr_config": "conf/mixed.yaml"}, "'model: cif' with 'decoder: transformer'"),
        ({"inference_config": "conf/none.yaml"}, "--inference_config conf/none.yaml"),
        ({"inference_args": "--no_such_option 1"}, "no_such_option"),
        ({"pretrained_model": "none.pth"}, "--pretrained_model none.pth"),
        ({"ngpu": "9"}, "--ngpu 9, but"),
        pytest.param(
            {"batch_size": "2"},
            "--batch_size 2: this ESPnet decodes one utterance at a time",
            marks=pytest.mark.skipif(BATCHES, reason="this ESPnet decodes batches"),
        ),
    ],
)
def test_bad_configuration(
    recipe: Path,
    capfd: pytest.CaptureFixture[str],
    changed: dict[str, str],
    message: str,
) -> None:
    conf = Path("conf")
    (conf / "broken.yaml").write_text("a: 1\nb: [1\n")
    (conf / "list.yaml").write_text("- 1\n")
    (conf / "unknown.yaml").write_text(tiny_recipe.ASR_CONFIG + "no_such_option: 1\n")
    (conf / "misfit.yaml").write_text(
        tiny_recipe.ASR_CONFIG.replace("attention_heads: 2", "attention_heads: 3")
    )
    (conf / "pure_ctc.yaml").write_text(
        tiny_recipe.CIF_CONFIG.replace("ctc_weight: 0.5", "ctc_weight: 1")
    )
    (conf / "mixed.yaml").write_text(
        tiny_recipe.CIF_CONFIG.replace("decoder: cif", "decoder: transformer")
    )
    line = refusal(capfd, stage="10", asr_tag="new", **changed)
    assert message in line
    assert not Path("exp/asr_new/train.log").exists()


def test_an_unknown_option_and_a_missing_stage(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert "did you mean --asr_config" in refusal(capfd, asr_confg="x")
    assert "--stage 44 does not exist" in refusal(capfd, stage="44")


def test_tokens_that_differ_from_the_checkpoint(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = Path("data/en_token_list/char/tokens.txt")
    tokens = path.read_text().splitlines()
    path.write_text(
        "\n".join([*tokens[:2], *reversed(tokens[2:-1]), tokens[-1]]) + "\n"
    )
    line = refusal(capfd, stage="10")
    assert "tokens.txt" in line and "differs from the token list of" in line
    assert "--asr_tag" in line


@pytest.mark.parametrize(
    ("stage", "missing", "message"),
    [
        ("3", "data/train/wav.scp", "data/train/wav.scp is missing: run stage 1"),
        ("4", "dump/raw/org/train/text", "org/train/text is missing: run stage 3"),
        ("5", "dump/raw/lm_train.txt", "lm_train.txt is missing: run stage 4"),
        ("10", "dump/raw/valid/text", "dump/raw/valid/text is missing: run stage 4"),
        ("10", "data/en_token_list/char/tokens.txt", "missing: run stage 5"),
        (
            "11",
            "exp/asr_stats_raw_en_char/train/feats_stats.npz",
            "feats_stats.npz is missing: run stage 10",
        ),
        ("12", str(ASR_EXP / "valid.acc.ave.pth"), "ave.pth is missing: run stage 11"),
    ],
)
def test_a_stage_without_its_input(
    recipe: Path,
    capfd: pytest.CaptureFixture[str],
    stage: str,
    missing: str,
    message: str,
) -> None:
    Path(missing).unlink()
    assert message in refusal(capfd, stage=stage)


def test_half_written_inputs(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = ASR_EXP / "valid.acc.ave.pth"
    whole = model.resolve().read_bytes()
    model.unlink()
    model.write_bytes(whole[: len(whole) // 2])
    assert "is half-written: run stage 11" in refusal(capfd, stage="12")
    Path("exp/asr_stats_raw_en_char/.incomplete-10").touch()
    line = refusal(capfd, stage="11")
    assert "stage 10 was interrupted: run stage 10 again" in line
    Path("dump/raw/train/.incomplete-4").touch()
    assert "stage 4 was interrupted" in refusal(capfd, stage="10")


def test_audio_damaged_after_stage_3(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scp = read_table("dump/raw/train/wav.scp")
    path = Path(scp["spk0-train0"])
    path.write_bytes(path.read_bytes()[:20])
    assert "audio of spk0-train0 cannot be read" in refusal(capfd, stage="10")
    path.unlink()
    assert "audio of spk0-train0 cannot be read" in refusal(capfd, stage="10")
    soundfile.write(path, np.zeros(500), tiny_recipe.RATE)
    assert "has 500 samples" in refusal(capfd, stage="10")


def test_nan_in_a_dump_that_asr_sh_made(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for marker in Path("dump").rglob(".done-*"):
        marker.unlink()
    scp = read_table("dump/raw/train/wav.scp")
    samples, rate = soundfile.read(scp["spk0-train0"])
    samples[7] = np.nan
    soundfile.write("nan.wav", samples, rate, subtype="FLOAT")
    write_table("dump/raw/train/wav.scp", {**scp, "spk0-train0": "nan.wav"})
    assert "audio of spk0-train0 contains NaN" in refusal(capfd, stage="10")


def test_targets_longer_than_the_frames(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = read_table("dump/raw/train/text")
    write_table("dump/raw/train/text", {**text, "spk0-train0": "ab" * 40})
    line = refusal(capfd, stage="10", stop_stage="10")
    assert "spk0-train0 (CTC needs 80 frames, the encoder makes" in line
    assert "--drop_too_long true" in line
    assert run(stage="10", stop_stage="10", drop_too_long="true") == 0
    assert "left 1 utterances out" in capfd.readouterr().out
    assert "spk0-train0" not in read_table("dump/raw/train/wav.scp")
    assert len(read_table("exp/asr_stats_raw_en_char/train/text_shape")) == 7
    listed = Path("dump/raw/train/dropped_too_long").read_text()
    assert listed.startswith("spk0-train0 CTC needs 80 frames")


def test_too_little_disk_for_checkpoints(
    recipe: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert "stage 11 (checkpoints) needs about" in refusal(capfd, stage="10")


def with_teacher(folder: Path, **changed: object) -> str:
    """A configuration that distils from a tiny BERT; its name."""
    conf = {"teacher": build_tiny_bert(folder), "teacher_dim": HIDDEN, **changed}
    text = tiny_recipe.CIF_CONFIG.replace(
        "ctc_weight: 0.5", f"ctc_weight: 0.5, criterion: hkd, criterion_conf: {conf}"
    )
    Path("conf/hkd.yaml").write_text(text)
    return "conf/hkd.yaml"


def test_a_teacher_store_is_filled_before_stage_10(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = with_teacher(recipe / "bert", teacher_store="exp/store")
    assert run(stage="10", stop_stage="11", asr_config=config) == 0
    told = capfd.readouterr().out
    assert told.index("storing the teacher's features") < told.index("stage 10 (")
    assert (recipe / "exp/store/header.json").is_file()
    assert Path("exp/asr_hkd_raw_en_char/valid.acc.ave.pth").is_file()
    # Another token list makes the store useless, and is refused by name.
    tokens = Path("data/en_token_list/char/tokens.txt")
    names = tokens.read_text().splitlines()
    tokens.write_text("\n".join([*names[:-1], "c", names[-1]]) + "\n")
    line = refusal(capfd, stage="10", asr_config=config, asr_tag="new")
    assert "exp/store" in line and "token list" in line


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher": "no/such/folder"}, "no/such/folder"),
        ({"teacher_dim": 7}, "teacher_dim"),
        ({"no_such_option": 7}, "no_such_option"),
    ],
)
def test_teachers_that_are_refused(
    recipe: Path,
    capfd: pytest.CaptureFixture[str],
    changed: dict[str, object],
    message: str,
) -> None:
    config = with_teacher(recipe / "bert", **changed)
    assert message in refusal(capfd, stage="5", asr_config=config)
    assert "stage 5" not in capfd.readouterr().out


def test_a_teacher_without_a_fast_tokenizer(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = with_teacher(recipe / "bert")
    for path in Path("bert").glob("*token*"):
        path.unlink()
    assert "bert" in refusal(capfd, stage="10", asr_config=config)


def test_a_failing_command_is_told_in_one_line(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = refusal(
        capfd, stage="11", asr_tag="bad", asr_args="--batch_type sorted --batch_size 0"
    )
    assert "stage 11 failed" in line and "exp/asr_bad/train.log" in line
    assert "half-written" not in line
    assert Path("exp/asr_bad/.incomplete-11").exists()


def test_a_lost_hypothesis_is_not_scored(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = INFERENCE / "test/text"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    line = refusal(capfd, stage="13", use_lm="true")
    assert "lacks 1 of 3 utterances (spk0-test0)" in line


def test_local_score_is_called(recipe: Path) -> None:
    Path("local/score.sh").write_text('echo "$@" > scored\n')
    assert run(stage="13", use_lm="true", local_score_opts="--more yes") == 0
    assert Path("scored").read_text() == f"--more yes {ASR_EXP}\n"
