"""espnet-cif align with a model: texts and audio that it cannot align."""

from pathlib import Path

import pytest
import soundfile
from tiny_speech import CHANGES, RATE, model_files, noise

from espnet_cif_hkd.cli import align


def test_a_file_that_cannot_be_aligned_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_files(tmp_path, **CHANGES)
    texts = {"a": "abc", "b": "a b, c!", "c": "a", "d": "de"}
    for name in texts:
        seconds = 181.0 if name == "c" else 2.0
        soundfile.write(tmp_path / f"{name}.wav", noise(seconds), RATE)
    table = tmp_path / "text"
    table.write_text("".join(f"{name} {text}\n" for name, text in texts.items()))
    audio = [str(tmp_path / f"{name}.wav") for name in texts]
    options = ["--text", str(table), "--model", str(tmp_path), "-f", "text"]
    assert align.main([*audio, *options, "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert out == "a ABC\nd DE\n"
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "b.wav: the model has no token for ',', '!' of the text" in errors[0]
    assert "c.wav: 181 s of audio are too long to align" in errors[1]
