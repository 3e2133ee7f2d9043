"""The complete engine on a tiny recipe, in this process."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from finished_recipe import ASR_EXP, BATCHES, INFERENCE, ROOT, finished, recipe, run

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe import commands
from espnet_cif_hkd.recipe.stages import decode, statistics

__all__ = ["finished", "recipe"]


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
    printed = capfd.readouterr().out
    for stage in (1, 4, 5, 6, 7, 8, 10, 11, 12):
        assert any(
            line.split(" ", 1)[1].startswith(f"stage {stage} ") and "reused" in line
            for line in printed.splitlines()
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
    (tmp_path / "printed.py").write_text(
        "import os, sys\nprint(os.environ['OMP_NUM_THREADS'], sys.argv[1])\n"
        "sys.exit(sys.argv[1] == 'bad')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    logs = [tmp_path / f"logs/{number}.log" for number in (1, 2)]
    commands.run_jobs("printed", [(["a"], logs[0]), (["b"], logs[1])], "telling")
    assert [log.read_text().splitlines()[-1] for log in logs] == ["1 a", "1 b"]
    with pytest.raises(UserError, match=r"telling failed \(exit status 1\).*2\.log"):
        commands.run_jobs("printed", [(["a"], logs[0]), (["bad"], logs[1])], "telling")


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
    found = decode.real_time_factor([log], 16000)
    assert found["audio"] == pytest.approx(3.0)
    assert found["decoding"] == pytest.approx(2.5)
    assert found["rtf"] == pytest.approx(2.5 / 3)
    assert found["latency"] == pytest.approx(1250)
