"""The picture of an utterance: its numbers, its file, and the command around it."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tiny_model import tiny_config

from espnet_cif_hkd.cli import plot_alignment
from espnet_cif_hkd.inference.figure import (
    Alignment,
    draw,
    labels_of,
    running_sum,
)

PNG = b"\x89PNG\r\n\x1a\n"
RATE = 8000


def _alignment() -> Alignment:
    # 8 frames of 0.1 s; the sum is 1 after 2, 4 and 8 frames.
    return Alignment(
        samples=np.zeros(6400, dtype=np.float32),
        rate=RATE,
        alpha=np.array([0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]),
        edges=np.arange(9) * 0.1,
        firing_times=np.array([0.2, 0.4, 0.8]),
        tokens=["A", "<space>"],
        hypothesis="A ",
    )


def test_each_firing_gets_the_token_that_it_completes() -> None:
    alignment = _alignment()
    spans = labels_of(alignment)
    assert spans == [(0.0, 0.2, "A"), (0.2, 0.4, "␣"), (0.4, 0.8, "eos")]
    alignment.tokens = []
    assert [label for _, _, label in labels_of(alignment)] == ["eos", "", ""]
    alignment.firing_times = np.array([])
    assert labels_of(alignment) == []


def test_the_running_sum_starts_again_at_each_firing() -> None:
    times, total = running_sum(_alignment())
    assert times[0] == 0.0
    assert times[-1] == pytest.approx(0.8)
    parted = times[np.isnan(total)]
    assert parted == pytest.approx([0.2, 0.4, 0.8])
    assert np.interp(0.1, times, total) == pytest.approx(0.5)
    assert np.interp(0.6, times, total) == pytest.approx(0.5)


@pytest.mark.parametrize("fired", [0, 3])
def test_a_picture_appears_complete(tmp_path: Path, fired: int) -> None:
    alignment = _alignment()
    alignment.firing_times = alignment.firing_times[:fired]
    alignment.reference = "A REFERENCE " * 30
    draw(alignment, tmp_path / "images" / "a.png")
    assert (tmp_path / "images" / "a.png").read_bytes().startswith(PNG)
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["a.png"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny untrained model and half a second of noise at 16 kHz."""
    from espnet2.tasks.asr import ASRTask

    folder = tmp_path_factory.mktemp("exp")
    config = tiny_config(
        input_size=None,
        frontend="default",
        frontend_conf={"fs": RATE, "n_fft": 256, "hop_length": 80, "n_mels": 20},
        token_type="char",
    )
    config["encoder_conf"] = {**config["encoder_conf"], "input_layer": "conv2d2"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.manual_seed(1)
    model, _ = ASRTask.build_model_from_file(folder / "config.yaml")
    torch.save(model.state_dict(), folder / "model.pth")
    noise = np.random.default_rng(0).normal(0, 0.1, 8000)
    soundfile.write(folder / "noise.wav", noise, 16000)
    (folder / "wav.scp").write_text(f"utt1 {folder / 'noise.wav'}\nutt2 absent.wav\n")
    (folder / "text").write_text("utt1 A REFERENCE\n")
    (folder / "token").write_text("utt1 A <space> B\n")
    return folder


def _plot(experiment: Path, *more: str) -> int:
    return plot_alignment.main(
        [
            *("--model_file", str(experiment / "model.pth")),
            *("--train_config", str(experiment / "config.yaml")),
            *("--out", str(experiment / "a.png"), *more),
        ]
    )


@pytest.mark.slow
def test_a_file_is_decoded_and_drawn(experiment: Path) -> None:
    assert _plot(experiment, "--audio", str(experiment / "noise.wav")) == 0
    assert (experiment / "a.png").read_bytes().startswith(PNG)


def test_times_are_seconds_of_the_audio(
    experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Alignment] = []
    monkeypatch.setattr(
        plot_alignment, "draw", lambda alignment, out: drawn.append(alignment)
    )
    scp = ["--wav_scp", str(experiment / "wav.scp")]
    hypothesis = ["--text", str(experiment / "text"), "--hyp_dir", str(experiment)]
    assert _plot(experiment, *scp, *hypothesis) == 0
    (alignment,) = drawn
    assert alignment.rate == RATE
    assert len(alignment.samples) == 4000  # resampled from 16 kHz
    assert alignment.reference == "A REFERENCE"
    assert alignment.tokens == ["A", "<space>", "B"]
    # conv2d2 with a hop of 10 ms: frame n is centred at (3 + 2 n) hops.
    n_frames = len(alignment.alpha)
    centres = (alignment.edges[1:] + alignment.edges[:-1]) / 2
    assert centres == pytest.approx(0.03 + 0.02 * np.arange(n_frames))
    assert 0.5 - 0.04 < alignment.edges[-1] <= 0.5
    assert np.all(np.diff(alignment.firing_times) > 0)
    whole = int(alignment.alpha.sum())
    assert len(alignment.firing_times) in (whole, whole + 1)
    times, total = running_sum(alignment)
    parted = times[np.isnan(total)]
    step = 0.02 / 20
    assert parted == pytest.approx(
        alignment.firing_times[: len(parted)], abs=1.01 * step
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--audio", "absent.wav"], "audio of absent.wav cannot be read (there is no"),
        (
            ["--audio", "absent.wav", "--text", "x"],
            "--text and --hyp_dir need --utt_id",
        ),
        (["--wav_scp", "absent.scp"], "absent.scp is missing"),
        (["--wav_scp", "{exp}/wav.scp", "--utt_id", "utt3"], "no utterance utt3"),
        (["--wav_scp", "{exp}/wav.scp", "--utt_id", "utt2"], "audio of utt2 cannot be"),
        (["--audio", "{exp}/short.wav"], "too short"),
        (["--audio", "{exp}/empty.wav"], "empty.wav is empty"),
        (["--audio", "{exp}/noise.wav", "--out", "{exp}/text/a.png"], "--out {exp}/"),
        (["--audio", "x", "--model_file", "absent.pth"], "absent.pth: no such file"),
    ],
)
def test_bad_input_is_one_line(
    experiment: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    soundfile.write(experiment / "short.wav", np.zeros(160), RATE)
    soundfile.write(experiment / "empty.wav", np.zeros(0), RATE)
    assert (
        _plot(experiment, *(word.replace("{exp}", str(experiment)) for word in more))
        == 1
    )
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message.replace("{exp}", str(experiment)) in error


@pytest.mark.slow
@pytest.mark.parametrize("entry", ["cat {exp}/noise.wav |", "{exp}/stereo.wav"])
def test_what_stage_3_reads_is_drawn_into_a_folder(
    experiment: Path, tmp_path: Path, entry: str
) -> None:
    noise, rate = soundfile.read(experiment / "noise.wav")
    soundfile.write(experiment / "stereo.wav", np.stack([noise, -noise], axis=1), rate)
    scp = tmp_path / "wav.scp"
    scp.write_bytes(
        f"\ufeffutt1 {entry}\r\n".replace("{exp}", str(experiment)).encode()
    )
    assert _plot(experiment, "--wav_scp", str(scp), "--out", str(tmp_path)) == 0
    assert (tmp_path / "utt1.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_a_file_gives_its_name_to_the_picture(experiment: Path, tmp_path: Path) -> None:
    audio = str(experiment / "noise.wav")
    assert _plot(experiment, "--audio", audio, "--out", str(tmp_path)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["noise.png"]
    new = tmp_path / "new" / "a.png"
    assert _plot(experiment, "--audio", audio, "--out", str(new)) == 0
    assert new.read_bytes().startswith(PNG)
