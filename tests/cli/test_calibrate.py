"""Fitting a calibration by the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tiny_model import TOKENS, tiny_config
from tiny_speech import CHANGES, RATE, model_files, noise
from tiny_stream import streaming_conf, streaming_model

from espnet_cif_hkd import UserError
from espnet_cif_hkd.cli import calibrate
from espnet_cif_hkd.cli.calibrate import Decoded, fit
from espnet_cif_hkd.inference import gaps
from espnet_cif_hkd.inference.calibration import (
    Calibration,
    read_calibration,
    write_calibration,
)
from espnet_cif_hkd.inference.confidence import FEATURES
from espnet_cif_hkd.inference.fitting import Margins
from espnet_cif_hkd.inference.recognizer import Recognizer
from espnet_cif_hkd.inference.spans import Timing
from espnet_cif_hkd.io.digest import sha256


def decoded(n: int, tokens: int = 20) -> list[Decoded]:
    """Utterances whose first feature predicts what is right."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        values = rng.normal(size=(tokens, len(FEATURES)))
        right = values[:, 0] + 0.5 * rng.normal(size=tokens) > -1
        missing = rng.random(tokens + 1) < 0.1
        of_gaps = rng.normal(size=(tokens + 1, len(gaps.FEATURES)))
        of_gaps[:, 0] = missing + 0.1 * of_gaps[:, 0]
        sure = np.full(tokens, 0.99)
        margins = Margins(0.03 + 0.01 * rng.normal(), 0.2)
        found.append(Decoded(values, sure, right, of_gaps, missing, margins))
    return found


def test_everything_is_fitted_and_reported() -> None:
    found = fit(decoded(60))
    assert found.weights is not None
    assert found.weights[1] > 5 * max(map(abs, found.weights[2:]))
    assert found.timing.lead == pytest.approx(0.03, abs=0.005)
    assert found.timing.trail == 0.2
    assert found.gaps is not None and found.gaps[1] > 0
    report = found.report
    assert report["utterances"] == 60
    assert report["tokens"] == 1200
    assert report["after"]["auc"] > 0.9 > report["before"]["auc"]
    assert report["after"]["ece"] < 0.05 < report["before"]["ece"]
    assert report["missing_found"] > 0.9
    assert report["missing_found_near"] >= report["missing_found"]


def test_too_little_keeps_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    few = decoded(3)
    for one in few:
        one.margins = None
    found = fit(few)
    assert (found.weights, found.timing) == (None, Calibration().timing)
    assert (found.gaps, found.limit) == (None, 0.0)
    with pytest.raises(UserError, match="no utterance has a token"):
        fit([])


def test_without_a_text_only_times_are_fitted() -> None:
    known, silent = decoded(60), decoded(60)
    for one in silent:
        one.right = one.missing = None
    found = fit(silent)
    assert found.timing == fit(known).timing != Calibration().timing
    assert (found.weights, found.gaps, found.limit) == (None, None, 0.0)
    assert found.report == {"utterances": 60, "tokens": 1200}
    with pytest.raises(UserError, match="nothing can be fitted"):
        fit(silent[:3])


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "exp"
    folder.mkdir()
    model_files(folder, **CHANGES)
    data = tmp_path / "dev"
    data.mkdir()
    rng = np.random.default_rng(0)
    recordings, texts = [], []
    for n in range(12):
        samples = rng.normal(0, 1e-4, RATE // 2)
        samples[RATE // 8 : RATE // 4] += rng.normal(0, 0.1, RATE // 8)
        soundfile.write(f"u{n}.wav", samples, RATE)
        recordings.append(f"u{n} u{n}.wav\n")
        texts.append(f"u{n} {''.join(rng.choice(TOKENS[3:-1], 8))}\n")
    (data / "wav.scp").write_text("".join(recordings))
    (data / "text").write_text("".join(texts))
    return tmp_path


@pytest.mark.slow
def test_the_command_writes_a_file_that_the_recogniser_reads(recipe: Path) -> None:
    calibrate.main(["--model", "exp", "--data", "dev", "--utterances", "11"])
    found = read_calibration(recipe / "exp/1epoch.pth")
    assert found.report["utterances"] <= 11
    assert found.report["data"] == "dev"
    assert Recognizer("exp").results.calibration == found
    assert str(recipe) not in json.dumps(found.report)
    # Again, from the same start: what was fitted before is not used.
    calibrate.main(["--model", "exp", "--data", "dev", "--utterances", "11"])
    assert read_calibration(recipe / "exp/1epoch.pth") == found
    # The calibration of a model that was trained on, or a damaged one, is replaced.
    (recipe / "exp/calibration.json").write_text("{")
    calibrate.main(["--model", "exp", "--data", "dev", "--utterances", "11"])
    assert read_calibration(recipe / "exp/1epoch.pth") == found
    model = recipe / "exp/1epoch.pth"
    model.write_bytes(model.read_bytes() + b" ")
    with pytest.raises(UserError, match="of another model"):
        read_calibration(model)
    calibrate.main(["--model", "exp", "--data", "dev", "--utterances", "11"])
    assert read_calibration(model).weights == found.weights


def test_a_one_pass_search_is_calibrated_by_its_own_decoder(tmp_path: Path) -> None:
    (tmp_path / "exp").mkdir()
    nar = {"attention_heads": 2, "num_blocks": 1}
    model_files(tmp_path / "exp", **CHANGES, model_conf={"nar_conf": nar})
    soundfile.write(
        tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, RATE), RATE
    )
    for one_pass in (True, False):
        recognizer = Recognizer(tmp_path / "exp", one_pass=one_pass)
        [one] = calibrate._decoded(recognizer, "a", str(tmp_path / "a.wav"), None)
        samples, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
        found = recognizer.recognise(samples)
        sure = [token.confidence for token in found.tokens]
        assert len(sure) > 1
        assert one.uncalibrated.tolist() == pytest.approx(sure, abs=1e-5)


def test_times_of_streams_become_those_of_complete_utterances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tiny_config(token_type="char", **streaming_conf())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(conf), encoding="utf-8")
    torch.save(streaming_model().state_dict(), tmp_path / "1epoch.pth")
    chosen = []
    for n in range(3):
        soundfile.write(tmp_path / f"{n}.flac", noise(1.2, n), RATE)
        chosen.append((str(n), str(tmp_path / f"{n}.flac")))
    recognizer = Recognizer(tmp_path)
    known = Calibration(report={"tokens": 3})
    assert calibrate._with_stream_times(known, recognizer, chosen[:1]) == known
    monkeypatch.setattr(calibrate, "_FEWEST_TOKENS", 10)
    found = calibrate._with_stream_times(known, recognizer, chosen)
    timing = found.timing
    assert timing.stream_start and timing.stream_end
    assert (timing.lead, timing.trail) == (known.timing.lead, known.timing.trail)
    assert found.report["tokens"] == 3 and found.report["stream"]["tokens"] > 10
    # What is fitted is used, and then nothing is left to fit.
    recognizer.results.calibration = found
    left = []
    for _, path in chosen:
        samples, _ = soundfile.read(path, dtype="float32")
        stream = recognizer.stream()
        stream.accept(samples)
        for one, other in zip(
            recognizer.recognise(samples).tokens, stream.finish().validate().tokens
        ):
            left.append((one.start - other.start, one.end - other.end))
    assert np.abs(np.median(left, axis=0)).max() < 0.01


def test_a_model_that_does_not_stream_keeps_its_calibration(tmp_path: Path) -> None:
    model_files(tmp_path, **CHANGES)
    known = Calibration()
    recognizer = Recognizer(tmp_path)
    assert calibrate._with_stream_times(known, recognizer, [("a", "none")]) is known


def test_audio_without_text(
    recipe: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Confidences of the same checkpoint are kept, others are not."""
    timing = Timing(0.01, 0.34)
    monkeypatch.setattr(calibrate.fitting, "fit_timing", lambda found: timing)
    monkeypatch.setattr(calibrate, "_FEWEST_UTTERANCES", 0)
    (recipe / "dev/text").unlink()
    model = recipe / "exp/1epoch.pth"
    command = ["--model", "exp", "--data", "dev", "--utterances", "2"]
    calibrate.main(command)
    found = read_calibration(model)
    assert (found.timing, found.weights, found.gaps) == (timing, None, None)
    assert found.report["search"] == {"greedy": True, "lm": False}
    out = capfd.readouterr().out
    assert "confidences were not calibrated: dev has no text\n" in out
    weights, of_gaps = (1.0,) * 6, (2.0,) * 5
    search = {"greedy": False, "lm": False, "beam_size": 10}
    old = Calibration(
        sha256(model), Timing(), weights, of_gaps, 1.5, {"search": search}
    )
    write_calibration(model, old)
    calibrate.main(command)
    found = read_calibration(model)
    assert replace(found, report=old.report) == replace(old, timing=timing)
    assert found.report["search"] == search
    assert found.report["timing"]["tokens"] > 0
    write_calibration(model, replace(old, model="0"))
    calibrate.main(command)
    assert read_calibration(model).weights is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--model", "exp", "--data", "none"],
            r"none/wav.scp is missing: give a folder",
        ),
        (["--model", "none", "--data", "dev"], r"none"),
        (
            ["--model", "exp", "--data", "dev", "--lm_weight", "0.3"],
            r"--lm_weight needs --beam",
        ),
        (["--model", "exp", "--data", "dev", "--utterances", "0"], r"at least 1"),
        (["--model", "exp", "--data", "cut"], r"cut has segments"),
    ],
)
def test_bad_input_is_one_line(
    recipe: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (recipe / "cut").mkdir()
    (recipe / "cut/segments").touch()
    with pytest.raises(SystemExit) as stop:
        calibrate.main(options)
    assert stop.value.code == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert message in line
