"""``--drop_too_long``: a drop belongs to one experiment."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_recipe
from finished_recipe import finished, recipe, refusal, run

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import read_table, write_table
from espnet_cif_hkd.recipe import dropped, stock
from espnet_cif_hkd.recipe.context import Run

__all__ = ["finished", "recipe"]

STATS = Path("exp/asr_stats_raw_en_char")
TOO_LONG = {"train": "spk0-train0", "valid": "spk1-valid1"}


@pytest.fixture
def too_long(recipe: Path) -> dict[Path, bytes]:
    """One utterance of each set has more tokens than frames; the files of the dump."""
    for part, utterance in TOO_LONG.items():
        text = read_table(f"dump/raw/{part}/text")
        write_table(f"dump/raw/{part}/text", {**text, utterance: "ab" * 40})
    return dump()


def dump() -> dict[Path, bytes]:
    """The tables of the training and validation sets."""
    folders = (Path("dump/raw", part) for part in TOO_LONG)
    return {p: p.read_bytes() for f in folders for p in f.iterdir() if p.is_file()}


def trained_on(exp: str, part: str) -> set[str]:
    """The utterances of the tables that the training log names."""
    command = Path(exp, "train.log").read_text().split("\n", 1)[0].split()
    flag = f"--{part}_data_path_and_name_and_type"
    texts = [
        command[at + 1].split(",")[0]
        for at, word in enumerate(command)
        if word == flag and command[at + 1].endswith(",text,text")
    ]
    shapes = [
        command[at + 1]
        for at, word in enumerate(command)
        if word == f"--{part}_shape_file"
    ]
    (first, *rest) = [set(read_table(path)) for path in (*texts, *shapes)]
    assert len(rest) == 2 and all(keys == first for keys in rest)
    return first


def test_it_is_refused_without_the_option(
    too_long: dict[Path, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capfd, stage="10", stop_stage="10", asr_tag="a")
    assert "spk0-train0 (CTC needs 80 frames, the encoder makes" in line
    assert "--drop_too_long true" in line
    assert "(all in exp/asr_a/dropped_too_long.train)" in line
    listed = Path("exp/asr_a/dropped_too_long.train").read_text()
    assert listed.startswith("spk0-train0 CTC needs 80 frames")


@pytest.mark.parametrize("splits", ["1", "2"])
def test_the_next_experiment_sees_the_complete_sets(
    too_long: dict[Path, bytes], capfd: pytest.CaptureFixture[str], splits: str
) -> None:
    with_drop = {"asr_tag": "a", "drop_too_long": "true", "num_splits_asr": splits}
    # Stages 10 and 11 are run alone, as a user would after an interruption.
    assert run(stage="10", stop_stage="10", **with_drop) == 0
    assert len(read_table(STATS / "train/text_shape")) == 8
    assert run(stage="11", stop_stage="11", **with_drop) == 0
    printed = capfd.readouterr().out
    assert "1 utterances of dump/raw/train are not trained on: spk0-train0" in printed
    assert "1 utterances of dump/raw/valid are not trained on: spk1-valid1" in printed
    assert dump() == too_long
    if splits == "1":
        assert len(trained_on("exp/asr_a", "train")) == 7
    else:
        assert list(Path("exp/asr_a/kept/splits2/text").glob("*"))
        assert not (STATS / "splits2").exists()
    assert TOO_LONG["valid"] not in trained_on("exp/asr_a", "valid")
    # This one takes every frame of the front end, so that all texts fit.
    longer = {"asr_tag": "b", "asr_args": "--encoder_conf input_layer=linear"}
    assert run(stage="11", stop_stage="11", **longer) == 0
    assert trained_on("exp/asr_b", "train") == set(read_table("dump/raw/train/text"))
    assert trained_on("exp/asr_b", "valid") == set(read_table("dump/raw/valid/text"))


def test_reuse_sees_the_drop(
    too_long: dict[Path, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    with_drop = {"asr_tag": "a", "reuse": "true", "stage": "10", "stop_stage": "11"}
    assert run(**with_drop, drop_too_long="true") == 0
    capfd.readouterr()
    assert run(**with_drop, drop_too_long="true") == 0
    assert capfd.readouterr().out.count("up to date, reused") == 2
    # Without the option the model does not count as trained on all that was asked for.
    assert "--drop_too_long true" in refusal(capfd, **with_drop)


def test_dropping_nothing_changes_nothing(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = {"asr_tag": "a", "reuse": "true", "stage": "10", "stop_stage": "11"}
    assert run(**plain) == 0
    capfd.readouterr()
    assert run(**plain, drop_too_long="true") == 0
    assert capfd.readouterr().out.count("up to date, reused") == 2
    assert not list(Path("exp/asr_a").glob("dropped*"))
    assert not Path("exp/asr_a/kept").exists()


def test_a_list_is_deleted_when_the_texts_fit_again(
    too_long: dict[Path, bytes],
) -> None:
    words = {"asr_tag": "a", "drop_too_long": "true", "stage": "10"}
    assert run(**words, stop_stage="10") == 0
    assert list(Path("exp/asr_a").glob("dropped*"))
    for part, utterance in TOO_LONG.items():
        text = read_table(f"dump/raw/{part}/text")
        write_table(f"dump/raw/{part}/text", {**text, utterance: "ab"})
    assert run(**words, stop_stage="11") == 0
    assert trained_on("exp/asr_a", "train") == set(read_table("dump/raw/train/text"))
    assert not list(Path("exp/asr_a").glob("dropped*"))


def test_nothing_left_is_refused(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = read_table("dump/raw/train/text")
    write_table("dump/raw/train/text", dict.fromkeys(text, "ab" * 40))
    line = refusal(capfd, stage="10", asr_tag="a", drop_too_long="true")
    assert "would leave nothing of dump/raw/train" in line


def test_clips_without_a_spectrum_are_refused_before_stage_10(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = Path(read_table("dump/raw/train/wav.scp")["spk0-train0"])
    for samples, refused in ((128, True), (129, False)):
        soundfile.write(path, np.zeros(samples), tiny_recipe.RATE)
        counts = read_table("dump/raw/train/utt2num_samples")
        counts["spk0-train0"] = str(samples)
        write_table("dump/raw/train/utt2num_samples", counts)
        words = {"asr_tag": "a", "drop_too_long": "true", "stage": "10"}
        if refused:
            line = refusal(capfd, **words, stop_stage="10")
            assert "spk0-train0" in line and "larger --min_wav_duration" in line
        else:
            assert run(**words, stop_stage="10") == 0


def test_a_dump_that_version_0_2_has_shrunk_is_reported(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("dump/raw/train/dropped_too_long").write_text("spk0-train0 x\nspk9 y\n")
    assert run(stage="10", stop_stage="10") == 0
    line = "warning: version 0.2 removed 1 utterances from dump/raw/train"
    assert line in capfd.readouterr().out


def test_asr_sh_gets_shapes_and_statistics_in_one_folder(
    too_long: dict[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def check(run: Run) -> None:
        dropped.record(run, "train", {TOO_LONG["train"]: "why"})

    monkeypatch.setattr(stock, "check", check)
    monkeypatch.setattr(stock, "_run_asr_sh", lambda command: calls.append(command))
    words = tiny_recipe.options(lang="en", asr_tag="a", drop_too_long="true")

    def ends(*more: str) -> list[list[str]]:
        """What is added to the command line, call by call."""
        calls.clear()
        stock.run_stock(Path("asr.sh"), "py", [*words, *more])
        known = [word for word in (*words, *more) if word != "--drop_too_long"]
        return [call[4 + len(known) - 1 :] for call in calls]

    kept = ["--asr_stats_dir", "exp/asr_a/kept"]
    assert ends() == [
        ["--stop_stage", "9"],
        ["--stage", "10", "--stop_stage", "10"],
        ["--stage", "10", "--stage", "11", *kept],
    ]
    assert ends("--stage", "11") == [kept]
    assert ends("--stage", "12") == [kept]
    assert ends("--stage", "10", "--stop_stage", "10") == [[]]
    for part, count in (("train", 7), ("valid", 4)):
        for name in ("speech_shape", "text_shape.char"):
            assert len(read_table(f"exp/asr_a/kept/{part}/{name}")) == count
    statistics = Path("exp/asr_a/kept/train/feats_stats.npz")
    assert statistics.read_bytes() == (STATS / "train/feats_stats.npz").read_bytes()
    with pytest.raises(UserError, match="give --num_splits_asr 1"):
        ends("--stage", "11", "--num_splits_asr", "2")
