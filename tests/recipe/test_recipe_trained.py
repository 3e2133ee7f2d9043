"""A folder with a trained model is not overwritten by another one."""

import argparse
from pathlib import Path

import pytest
import yaml
from finished_recipe import ASR_EXP, finished, recipe, refusal, run

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe.checks.trained import check_same_model

__all__ = ["finished", "recipe"]
LM_EXP = Path("exp/lm_lm_en_char")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("asr_args", "message"),
    [
        ("--encoder_conf output_size=16", "encoder_conf.output_size 8, and this run"),
        (
            "--decoder_conf num_blocks=2",
            "decoder_conf.num_blocks 1, and this run",
        ),
        ("--encoder conformer", "encoder transformer, and this run has conformer"),
        ("--ctc_conf ctc_type=builtin2", "ctc_conf."),
        ("--optim sgd", "optim adam, and this run has sgd"),
        ("--optim_conf lr=0.1", "optim_conf.lr None, and this run has 0.1"),
        ("--scheduler warmuplr", "scheduler None, and this run has warmuplr"),
        ("--freeze_param encoder", "freeze_param [], and this run has ['encoder']"),
        ("--train_dtype float64", "train_dtype float32, and this run has float64"),
        ("--model_conf ctc_weight=0.0", "model_conf.ctc_weight 0.5, and this run"),
    ],
)
@pytest.mark.parametrize("stage", ["11"])
def test_another_recogniser(
    recipe: Path,
    capfd: pytest.CaptureFixture[str],
    asr_args: str,
    message: str,
    stage: str,
) -> None:
    before = contents(ASR_EXP)
    line = refusal(capfd, stage=stage, asr_args=asr_args, asr_exp=str(ASR_EXP))
    assert f"{ASR_EXP} has a model that was trained with {message}" in line
    assert f"another --asr_tag, or remove {ASR_EXP}" in line
    assert contents(ASR_EXP) == before


def test_another_normalisation_and_another_sampling_rate(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capfd, stage="11", feats_normalize="utterance_mvn")
    assert "normalize global_mvn, and this run has utterance_mvn" in line
    assert "frontend_conf.fs 8k, and this run has 16k" in refusal(
        capfd, stage="11", fs="16k"
    )


def test_another_language_model(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before, changed = contents(LM_EXP), {"use_lm": "true", "lm_exp": str(LM_EXP)}
    line = refusal(capfd, stage="7", lm_args="--lm_conf unit=16", **changed)
    assert "lm_conf.unit 8, and this run has 16" in line and "--lm_tag" in line
    tokens = Path("data/en_token_list/char/tokens.txt")
    tokens.write_text(tokens.read_text().replace("a\n", "x\na\n"))
    line = refusal(capfd, stage="7", stop_stage="7", **changed)
    assert "another token list than data/en_token_list" in line
    assert "(6 tokens, not 7)" in line
    assert contents(LM_EXP) == before


def test_other_data(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A training would go on from the old checkpoint."""
    before = contents(ASR_EXP), contents(LM_EXP)
    text = Path("dump/raw/train/text")
    text.write_text(text.read_text().replace("spk0-train0 ab", "spk0-train0 ba"))
    line = refusal(capfd, stage="11")
    assert "the training data have changed" in line and "--asr_tag" in line
    text = Path("dump/raw/lm_train.txt")
    text.write_text(text.read_text() + "more a b\n")
    line = refusal(capfd, stage="7", stop_stage="7", use_lm="true")
    assert "the training data have changed" in line and "--lm_tag" in line
    assert (contents(ASR_EXP), contents(LM_EXP)) == before
    # Nothing is lost where no epoch was finished.
    for path in ASR_EXP.glob("*.pth"):
        path.unlink()
    assert run(stage="11", stop_stage="11") == 0


OLD = {
    "encoder": "conformer",
    "encoder_conf": {"sizes": [1, 2]},
    "optim_conf": {"lr": 0.1},
    "max_epoch": 5,
    "batch_size": 4,
    "model_conf": {"ctc_weight": 0.5},
    "normalize_conf": {"stats_file": "here"},
}


@pytest.mark.parametrize(
    "changed",
    [
        {"max_epoch": 9},
        {"batch_size": 8},
        {"unknown": 1},
        {"encoder_conf": {"sizes": (1, 2)}},
        {"normalize_conf": {"stats_file": "there"}},
        {"model_conf": {"ctc_weight": 0.3}},  # tried by check_parameters
    ],
)
def test_what_may_change(tmp_path: Path, changed: dict[str, object]) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(OLD))
    (tmp_path / "1epoch.pth").touch()
    check_same_model(tmp_path, argparse.Namespace(**{**OLD, **changed}), "asr_tag")
    with pytest.raises(UserError, match=r"optim_conf\.lr 0\.1, and this run has 0\.2"):
        new = {**OLD, **changed, "optim_conf": {"lr": 0.2}}
        check_same_model(tmp_path, argparse.Namespace(**new), "asr_tag")


def test_a_folder_without_a_model_takes_any(tmp_path: Path) -> None:
    new = argparse.Namespace(**{**OLD, "encoder": "transformer"})
    check_same_model(tmp_path / "none", new, "asr_tag")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(OLD))
    check_same_model(tmp_path, new, "asr_tag")
    (tmp_path / "checkpoint.pth").touch()
    with pytest.raises(UserError, match="encoder conformer"):
        check_same_model(tmp_path, new, "asr_tag")
