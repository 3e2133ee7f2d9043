"""Stages 2 to 4: Kaldi's tables, speed, audio of any kind, filtering, markers."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_recipe
from recipe_data import make_run, recipe

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.audio import read_entry
from espnet_cif_hkd.io.tables import read_table, write_table
from espnet_cif_hkd.recipe.checks import preflight, stamps
from espnet_cif_hkd.recipe.stages import data, filter_data, format_audio

__all__ = ["recipe"]


def test_stage_3_writes_the_files_of_asr_sh(recipe: Path) -> None:
    format_audio.format_audio(make_run())
    folder = recipe / "dump/raw/org/train"
    names = ("audio_format", "feats_type", "spk2utt", "text", "utt2num_samples")
    for name in (*names, "utt2spk", "wav.scp"):
        assert (folder / name).is_file(), name
    assert (folder / "audio_format").read_text() == "flac\n"
    assert (folder / "feats_type").read_text() == "raw\n"
    scp = read_table(folder / "wav.scp")
    counts = read_table(folder / "utt2num_samples")
    assert len(scp) == 8
    assert scp["spk0-train0"] == "dump/raw/org/train/data/format.1/spk0-train0.flac"
    assert scp["spk1-train7"] == "dump/raw/org/train/data/format.2/spk1-train7.flac"
    for utterance, path in scp.items():
        samples, rate = soundfile.read(path)
        assert rate == tiny_recipe.RATE
        assert len(samples) == int(counts[utterance])
    source, _ = soundfile.read("sound/train/spk0-train0.wav")
    copy, _ = soundfile.read(scp["spk0-train0"])
    np.testing.assert_array_equal(source, copy)
    assert (recipe / "dump/raw/test/wav.scp").is_file()


def test_audio_in_the_right_form_is_not_copied(recipe: Path) -> None:
    format_audio.format_audio(make_run(audio_format="wav"))
    scp = read_table("dump/raw/org/train/wav.scp")
    assert scp == read_table("data/train/wav.scp")
    assert not (recipe / "dump/raw/org/train/data").exists()


def test_another_rate_is_resampled_and_reported_once(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny_recipe.write_set(recipe, "train", 8, rate=11025)
    data.prepare(make_run())
    format_audio.format_audio(make_run())
    printed = capfd.readouterr().out
    assert printed.count("data/train: resampled to 8000 Hz: 8 from 11025 Hz") == 1
    original = soundfile.info("sound/train/spk0-train0.wav")
    resampled, rate = soundfile.read(
        read_table("dump/raw/org/train/wav.scp")["spk0-train0"]
    )
    assert rate == 8000
    assert abs(len(resampled) / 8000 - original.duration) < 1e-3
    spectrum = np.abs(np.fft.rfft(resampled[: len(resampled) // 2]))
    pitch = np.argmax(spectrum) * 8000 / (len(resampled) // 2)
    assert abs(pitch - 300 * 11025 / 8000) < 5


def test_pipes_and_segments(recipe: Path) -> None:
    complete = np.concatenate(
        [soundfile.read(f"sound/test/spk{i % 2}-test{i}.wav")[0] for i in range(3)]
    )
    soundfile.write("long.wav", complete, tiny_recipe.RATE)
    ends = np.cumsum([0, *(0.8 + 0.05 * i for i in range(3))])
    names = [f"spk{i % 2}-test{i}" for i in range(3)]
    write_table("data/test/wav.scp", {"rec": "cat long.wav |"})
    write_table(
        "data/test/segments",
        {n: f"rec {ends[i]:.2f} {ends[i + 1]:.2f}" for i, n in enumerate(names)},
    )
    format_audio.format_audio(make_run())
    scp = read_table("dump/raw/test/wav.scp")
    assert list(scp) == sorted(names)
    for index, name in enumerate(names):
        expected, _ = soundfile.read(f"sound/test/{name}.wav")
        found, _ = soundfile.read(scp[name])
        assert abs(len(found) - len(expected)) <= 1, index
        np.testing.assert_allclose(found[:500], expected[:500], atol=1e-4)


def test_speed_perturbation_needs_no_sox(recipe: Path) -> None:
    run = make_run(speed_perturb_factors="0.9 1.0 1.1")
    data.speed_perturb(run)
    folder = Path("data/train_sp")
    speakers = read_table(folder / "utt2spk")
    assert len(speakers) == 24
    assert speakers["sp0.9-spk1-train1"] == "sp0.9-spk1"
    assert read_table(folder / "utt2uniq")["sp1.1-spk1-train1"] == "spk1-train1"
    assert read_table(folder / "text")["sp1.1-spk0-train2"] == "a b"
    entry = read_table(folder / "wav.scp")["sp0.9-spk0-train0"]
    assert entry.endswith("-t wav - speed 0.9 |")
    format_audio.format_audio(run)
    counts = read_table("dump/raw/org/train_sp/utt2num_samples")
    plain = int(counts["spk0-train0"])
    assert abs(int(counts["sp0.9-spk0-train0"]) - plain / 0.9) <= 2
    assert abs(int(counts["sp1.1-spk0-train0"]) - plain / 1.1) <= 2
    slow = read_entry(entry).samples
    spectrum = np.abs(np.fft.rfft(slow[: len(slow) // 2]))
    pitch = np.argmax(spectrum) * tiny_recipe.RATE / (len(slow) // 2)
    assert abs(pitch - 300 * 0.9) < 5


def test_speed_perturbation_of_segments(recipe: Path) -> None:
    write_table("data/train/wav.scp", {"rec": "sound/train/spk0-train0.wav"})
    write_table(
        "data/train/segments",
        dict.fromkeys(read_table("data/train/utt2spk"), "rec 0.09 0.45"),
    )
    data.speed_perturb(make_run(speed_perturb_factors="0.9"))
    segments = read_table("data/train_sp/segments")
    assert segments["sp0.9-spk0-train0"] == "sp0.9-rec 0.10 0.50"


def test_stage_4_filters_by_duration_and_writes_the_lm_text(recipe: Path) -> None:
    run = make_run(min_wav_duration="0.82", max_wav_duration="1.1")
    format_audio.format_audio(run)
    filter_data.filter_data(run)
    kept = read_table("dump/raw/train/wav.scp")
    assert len(read_table("dump/raw/org/train/wav.scp")) == 8
    # 0.80 s is too short; 1.10 s is not below the limit, nor is 1.15 s.
    assert sorted(kept) == [f"spk{i % 2}-train{i}" for i in (2, 4, 1, 3, 5)]
    for name in ("text", "utt2spk", "utt2num_samples"):
        assert set(read_table(f"dump/raw/train/{name}")) == set(kept)
    lines = Path("dump/raw/lm_train.txt").read_text().splitlines()
    assert len(lines) == 8
    assert lines[0] == "spk0-train0 ab"


def test_local_data_is_called_again_after_stage_4(recipe: Path) -> None:
    run = make_run(post_process_local_data_opts="--more yes")
    format_audio.format_audio(run)
    Path("local/data.sh").write_text('echo "$@" > called\n')
    filter_data.filter_data(run)
    assert Path("called").read_text() == "--more yes --asr_data_dir dump/raw/train\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "spk0-test0 cannot be read .*no such file"),
        ("corrupt", "spk0-test0 cannot be read"),
        ("cut", "spk0-test0 cannot be read|spk0-test0 is empty"),
        ("empty", "spk0-test0 is empty"),
        ("nan", "spk0-test0 contains NaN"),
        ("pipe", "spk0-test0 cannot be read .*gave no audio"),
    ],
)
def test_bad_audio_is_refused_by_name(recipe: Path, damage: str, message: str) -> None:
    path = Path("sound/test/spk0-test0.wav")
    good, rate = soundfile.read(path)
    if damage == "missing":
        path.unlink()
    elif damage == "corrupt":
        path.write_bytes(b"RIFF this is no sound")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:44])
    elif damage == "empty":
        soundfile.write(path, good[:0], rate)
    elif damage == "nan":
        good[100] = np.nan
        soundfile.write(path, good, rate, subtype="FLOAT")
    else:
        scp = read_table("data/test/wav.scp")
        write_table("data/test/wav.scp", {**scp, "spk0-test0": "false |"})
    with pytest.raises(UserError, match=message):
        format_audio.format_audio(make_run())
    # What the header shows is found before the first set is written.
    assert Path("dump").exists() == (damage not in ("missing", "corrupt"))
    if Path("dump").exists():
        with pytest.raises(UserError, match=r"test is half-written.*run stage 3"):
            stamps.require(Path("dump/raw/test"), 3, ["wav.scp"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text", "text has no transcript of spk0-train0"),
        ("utt2spk", "utt2spk has no speaker of spk0-train0"),
        ("wav.scp", "wav.scp has no audio of spk0-train0"),
    ],
)
def test_files_of_a_data_folder_must_agree(
    recipe: Path, name: str, message: str
) -> None:
    path = Path("data/train") / name
    table = read_table(path)
    del table["spk0-train0"]
    write_table(path, table)
    with pytest.raises(UserError, match=message):
        format_audio.format_audio(make_run())


def test_an_empty_transcript_is_refused_or_dropped_by_option(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = read_table("data/train/text")
    write_table("data/train/text", {**text, "spk0-train0": ""})
    with pytest.raises(UserError, match="transcript of spk0-train0 is empty"):
        format_audio.format_audio(make_run())
    run = make_run(drop_empty_text="true")
    format_audio.format_audio(run)
    filter_data.filter_data(run)
    assert "spk0-train0" not in read_table("dump/raw/train/wav.scp")
    assert "1 without a transcript: spk0-train0" in capfd.readouterr().out


def test_an_empty_reference_of_a_test_set_stays(recipe: Path) -> None:
    text = read_table("data/test/text")
    write_table("data/test/text", {**text, "spk0-test0": ""})
    format_audio.format_audio(make_run())
    assert read_table("dump/raw/test/text")["spk0-test0"] == ""


def test_markers(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(UserError, match=r"out/x is missing: run stage 4 first"):
        stamps.require(folder, 4, ["x"])
    stamps.begin(folder, 4)
    (folder / "x").write_text("1")
    with pytest.raises(UserError, match="half-written, stage 4 was interrupted"):
        stamps.require(folder, 4, ["x"])
    assert not stamps.is_done(folder, 4, "abc", ["x"])
    stamps.finish(folder, 4, "abc")
    stamps.require(folder, 4, ["x"])
    assert stamps.is_done(folder, 4, "abc", ["x"])
    assert not stamps.is_done(folder, 4, "other", ["x"])
    (folder / "x").write_text("")
    with pytest.raises(UserError, match="x is empty: run stage 4 again"):
        stamps.require(folder, 4, ["x"])
    assert not stamps.is_done(folder, 4, "abc", ["x"])


def test_reuse_notices_changed_audio(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    format_audio.format_audio(make_run())
    format_audio.format_audio(make_run(reuse="true"))
    assert capfd.readouterr().out.count("up to date, reused") == 3
    tiny_recipe.write_set(recipe, "test", 3, rate=16000)
    format_audio.format_audio(make_run(reuse="true"))
    assert capfd.readouterr().out.count("up to date, reused") == 2


@pytest.mark.parametrize("damage", ["file", "folder", "table"])
def test_reuse_notices_audio_that_is_gone(
    recipe: Path, capfd: pytest.CaptureFixture[str], damage: str
) -> None:
    format_audio.format_audio(make_run())
    folder = Path("dump/raw/org/train")
    path = Path(read_table(folder / "wav.scp")["spk1-train3"])
    sound = path.read_bytes()
    if damage == "file":
        path.unlink()
    elif damage == "folder":
        shutil.rmtree(folder / "data")
    else:
        (folder / "text").write_text("")
    capfd.readouterr()
    format_audio.format_audio(make_run(reuse="true"))
    printed = capfd.readouterr().out
    assert printed.count("up to date, reused") == 2
    assert "8 utterances in dump/raw/org/train" in printed
    assert path.read_bytes() == sound and (folder / "text").stat().st_size


@pytest.mark.parametrize("there", [True, False])
def test_the_advice_about_audio_can_be_followed(recipe: Path, there: bool) -> None:
    format_audio.format_audio(make_run())
    folder = Path("dump/raw/org/train")
    path = Path(read_table(folder / "wav.scp")["spk1-train3"])
    if there:
        path.write_bytes(path.read_bytes()[:20])
        expected = "is corrupt: run stage 3 again without --reuse true"
    else:
        path.unlink()
        expected = "is missing: run stage 3 again"
    with pytest.raises(UserError, match=f"audio of spk1-train3 .*{expected}$"):
        preflight.check_audio(folder)


def test_an_entry_longer_than_the_name_of_a_file(recipe: Path) -> None:
    scp = read_table("data/train/wav.scp")
    write_table("data/train/wav.scp", {**scp, "spk0-train2": "x" * 300})
    with pytest.raises(UserError, match=r"spk0-train2 .*there is no such file"):
        format_audio.format_audio(make_run(reuse="true"))


def test_too_little_disk(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"stage 3 of train needs about .* are free"):
        format_audio.format_audio(make_run())


def test_local_data_that_fails_or_leaves_nothing(recipe: Path) -> None:
    Path("local/data.sh").write_text("exit 3\n")
    with pytest.raises(UserError, match="failed with exit status 3"):
        data.prepare(make_run())
    Path("local/data.sh").write_text("rm -r data/test\n")
    with pytest.raises(UserError, match=r"left no data/test/wav\.scp"):
        data.prepare(make_run())
    Path("local/data.sh").unlink()
    with pytest.raises(UserError, match=r"local/data\.sh is missing"):
        data.prepare(make_run())
