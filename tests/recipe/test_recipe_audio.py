"""Stage 3 with channels, segments and scales that are not what it expects."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_recipe
from recipe_data import make_run, recipe

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import read_table, write_table
from espnet_cif_hkd.recipe import options, stock
from espnet_cif_hkd.recipe.checks import preflight
from espnet_cif_hkd.recipe.stages import data, format_audio

__all__ = ["recipe"]

RATE = tiny_recipe.RATE


def make_stereo(path: str) -> np.ndarray:
    """Give a recording a second channel at half the level; return the first."""
    samples, rate = soundfile.read(path)
    stereo = np.stack([samples, samples / 2], axis=1)
    soundfile.write(path, stereo, rate)
    return samples


def dumped(utterance: str, name: str = "org/train") -> np.ndarray:
    path = read_table(f"dump/raw/{name}/wav.scp")[utterance]
    samples: np.ndarray = soundfile.read(path)[0]
    return samples


@pytest.mark.parametrize("pipe", [False, True])
@pytest.mark.parametrize("utterance", ["spk0-train0", "spk1-train7"])
def test_one_stereo_recording_is_named(
    recipe: Path, utterance: str, pipe: bool
) -> None:
    scp = read_table("data/train/wav.scp")
    make_stereo(scp[utterance])
    if pipe:
        scp[utterance] = f"cat {scp[utterance]} |"
        write_table("data/train/wav.scp", scp)
    message = "data/train: .* with [12] channels among .* --channel 0 .*--channel mean"
    with pytest.raises(UserError, match=message) as caught:
        format_audio.format_audio(make_run())
    assert utterance in str(caught.value) or pipe
    # Headers tell before anything is written.
    assert Path("dump").exists() == pipe


def test_one_stereo_recording_of_perturbed_ones_is_named(recipe: Path) -> None:
    make_stereo(read_table("data/train/wav.scp")["spk0-train0"])
    run = make_run(speed_perturb_factors="0.9 1.1")
    data.speed_perturb(run)
    with pytest.raises(
        UserError, match=r"sp0\.9-spk0-train0, sp1\.1-spk0-train0 with 2"
    ):
        format_audio.format_audio(run)
    assert not Path("dump").exists()


@pytest.mark.parametrize(("channel", "level"), [("0", 1), ("1", 0.5), ("mean", 0.75)])
@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_a_channel_by_option(
    recipe: Path, channel: str, level: float, audio_format: str
) -> None:
    scp = read_table("data/train/wav.scp")
    first = make_stereo(scp["spk0-train0"])
    mono = soundfile.read(scp["spk1-train1"])[0]
    format_audio.format_audio(make_run(channel=channel, audio_format=audio_format))
    np.testing.assert_allclose(dumped("spk0-train0"), first * level, atol=1e-4)
    np.testing.assert_array_equal(dumped("spk1-train1"), mono)
    kept = read_table("dump/raw/org/train/wav.scp")
    assert (kept["spk1-train1"] == scp["spk1-train1"]) == (audio_format == "wav")
    assert kept["spk0-train0"] != scp["spk0-train0"]


@pytest.mark.parametrize("value", ["-1", "left", "1.5"])
def test_channels_that_are_none(value: str) -> None:
    with pytest.raises(UserError, match=f"--channel {value}: write the number"):
        options.parse(tiny_recipe.options(channel=value))


def test_asr_sh_takes_no_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(stock, "_run_asr_sh", lambda command: calls.append(command))
    words = tiny_recipe.options(channel="0")
    with pytest.raises(UserError, match="--channel needs this package's engine"):
        stock.run_stock(Path("asr.sh"), "py", words)
    assert not calls
    # A dump that the engine has made is as good as any.
    stock.run_stock(Path("asr.sh"), "py", [*words, "--stage", "12"])
    assert len(calls) == 1 and "--channel" not in calls[0]


def test_a_corpus_with_several_channels_is_kept_and_reported(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in read_table("data/train/wav.scp").values():
        make_stereo(path)
    format_audio.format_audio(make_run())
    assert dumped("spk0-train0").shape[1] == 2
    printed = capfd.readouterr().out
    assert printed.count("data/train: all recordings keep 2 channels") == 1
    with pytest.raises(UserError, match="spk0-train0: no channel 2"):
        format_audio.format_audio(make_run(channel="2"))


def test_a_stereo_file_in_a_dump_that_asr_sh_made(recipe: Path) -> None:
    format_audio.format_audio(make_run())
    folder = Path("dump/raw/test")
    make_stereo(read_table(folder / "wav.scp")["spk0-test0"])
    for marker in (folder / ".done-3", None):
        with pytest.raises(UserError, match="spk0-test0 with 2 channels among"):
            preflight.check_audio(folder)
        if marker:
            marker.unlink()


def segments(lines: dict[str, str], entry: str = "long.wav") -> None:
    """Make the test set parts of ``long.wav``: 3 s of stereo, each second a level."""
    level = np.repeat([0.1, 0.2, 0.3], RATE)
    soundfile.write("long.wav", np.stack([level, -level], axis=1), RATE)
    write_table("data/test/wav.scp", {"rec": entry})
    write_table("data/test/segments", lines)


NAMES = ("spk0-test0", "spk1-test1", "spk0-test2")


@pytest.mark.parametrize("entry", ["long.wav", "cat long.wav |"])
def test_segments_choose_channels(recipe: Path, entry: str) -> None:
    lines = ("rec 0 1 0", "rec 1 2 1", "rec 2 -1 1")
    segments(dict(zip(NAMES, lines)), entry)
    format_audio.format_audio(make_run())
    for name, level in zip(NAMES, (0.1, -0.2, -0.3)):
        samples = dumped(name, "test")
        assert samples.shape == (RATE,)
        np.testing.assert_allclose(samples, level, atol=1e-4)


def test_a_segment_may_reach_a_little_beyond_its_recording(recipe: Path) -> None:
    segments(dict.fromkeys(NAMES, "rec 2 3.4 0"))
    format_audio.format_audio(make_run())
    assert dumped(NAMES[0], "test").shape == (RATE,)


@pytest.mark.parametrize("entry", ["long.wav", "cat long.wav |"])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rec -0.15 1 0", "the begin -0.15"),
        ("rec 2 3.6 0", "2 s to 3.6 s of rec, which lasts 3.000 s"),
        ("rec 3 -1 0", "3 s to its end of rec, which lasts 3.000 s"),
        ("rec 0 1 2", "is channel 2 of rec, which has 2, counted from 0"),
        ("rec 0 1", "spk0-test2 with 2 channels among recordings with 1"),
        ("other 0 1 0", "the recording other is not in data/test/wav.scp"),
    ],
)
def test_segments_that_are_refused(
    recipe: Path, line: str, message: str, entry: str
) -> None:
    segments({NAMES[0]: "rec 0 1 0", NAMES[2]: line, NAMES[1]: "rec 1 2 1"}, entry)
    place = "data/test: " if "among" in message else "data/test/segments, line 2: "
    with pytest.raises(UserError, match=f"^{place}.*{message}"):
        format_audio.format_audio(make_run())


def test_perturbed_segments_keep_channel_and_end(recipe: Path) -> None:
    write_table("data/train/wav.scp", {"rec": "sound/train/spk0-train0.wav"})
    lines = dict.fromkeys(read_table("data/train/utt2spk"), "rec 0.09 0.45 1")
    write_table("data/train/segments", {**lines, "spk0-train0": "rec 0.09 -1"})
    data.speed_perturb(make_run(speed_perturb_factors="0.9"))
    found = read_table("data/train_sp/segments")
    assert found["sp0.9-spk1-train1"] == "sp0.9-rec 0.10 0.50 1"
    assert found["sp0.9-spk0-train0"] == "sp0.9-rec 0.10 -1.00"
    write_table("data/train/segments", {**lines, "spk0-train0": "rec 0.09"})
    with pytest.raises(UserError, match="data/train/segments, line 1: 3 columns"):
        data.speed_perturb(make_run(speed_perturb_factors="0.9"))


def test_an_entry_without_a_file(recipe: Path) -> None:
    scp = read_table("data/train/wav.scp")
    write_table("data/train/wav.scp", {**scp, "spk0-train2": ""})
    with pytest.raises(UserError, match=r"wav\.scp, line 2: spk0-train2 has no file"):
        format_audio.format_audio(make_run())


def test_clipping_is_reported_and_another_scale_refused(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = read_table("data/train/wav.scp")["spk0-train0"]
    samples, rate = soundfile.read(path)
    louder = samples.copy()
    louder[[3, 4]] = 1.2, -1.3
    soundfile.write(path, louder, rate, subtype="FLOAT")
    format_audio.format_audio(make_run())
    line = "data/train: 2 samples of 1 recordings are outside -1 to 1 and were clipped"
    printed = capfd.readouterr().out
    assert printed.count(f"warning: stage 3: {line}, 2 of spk0-train0") == 1
    assert printed.count("clipped") == 1
    soundfile.write(path, np.rint(samples * 32767), rate, subtype="FLOAT")
    with pytest.raises(UserError, match=r"spk0-train0: .* divide its samples by 32768"):
        format_audio.format_audio(make_run())
