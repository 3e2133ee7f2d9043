"""What the engine refuses before hours are spent, each in one line."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_recipe
import yaml
from finished_recipe import ASR_EXP, BATCHES, INFERENCE, finished, recipe, refusal, run
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.io.tables import read_table, write_table

__all__ = ["finished", "recipe"]


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


@pytest.mark.parametrize(
    ("config", "changed", "message"),
    [
        ("CIF", {"use_streaming": "true"}, "'decoder: cif' cannot decode block by"),
        ("CIF", {"inference_args": "--streaming true"}, "--streaming true of asr_inf"),
        ("ASR", {"use_streaming": "true"}, "ESPnet streams only with contextual_block"),
    ],
)
@pytest.mark.parametrize("stages", [(10, 12), (12, 12)], ids=["new", "trained"])
def test_streaming_without_a_model_that_can(
    recipe: Path,
    capfd: pytest.CaptureFixture[str],
    config: str,
    changed: dict[str, str],
    message: str,
    stages: tuple[int, int],
) -> None:
    text = getattr(tiny_recipe, f"{config}_CONFIG")
    Path("conf/streamed.yaml").write_text(text)
    if stages[0] == 12:
        trained = yaml.safe_load(text)
        trained.setdefault("encoder", "conformer")
        trained.setdefault("decoder", "transformer")
        Path("exp/asr_streamed").mkdir(parents=True)
        Path("exp/asr_streamed/config.yaml").write_text(yaml.safe_dump(trained))
    line = refusal(
        capfd,
        stage=str(stages[0]),
        stop_stage=str(stages[1]),
        asr_tag="streamed",
        asr_config="conf/streamed.yaml",
        **changed,
    )
    assert message in line


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
    complete = model.resolve().read_bytes()
    model.unlink()
    model.write_bytes(complete[: len(complete) // 2])
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
    printed = capfd.readouterr().out
    assert printed.index("storing the teacher's targets") < printed.index("stage 10 (")
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


def test_a_failing_command_is_reported_in_one_line(
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
