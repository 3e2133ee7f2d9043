"""ESPnet's own program ``espnet`` on a packed model of ours: what its code allows.

ESPnet 202511 has no such program.
"""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from finished_recipe import finished
from packed_model import ARCHIVE, packed

from espnet_cif_hkd.io.tables import read_table

__all__ = ["finished", "packed"]

pytestmark = [pytest.mark.espnet3, pytest.mark.slow]
pytest.importorskip("espnet_model_zoo", reason="what unpacks shared models")
UTTERANCE = "spk1-test1"
# The launcher registers our classes; the rest are the words of the program "espnet".
PROGRAM = ("-m", "espnet_cif_hkd", "-m", "espnet2.bin.cli")
Espnet = Callable[..., "subprocess.CompletedProcess[str]"]
OURS = """
import sys
import espnet_cif_hkd
from espnet2.bin.align import ForcedAligner

class At(espnet_cif_hkd.Speech2Text):
    sample_rate = int(sys.argv[4])

files = espnet_cif_hkd.inference.model_files.downloaded(sys.argv[1])
for kind in (espnet_cif_hkd.Speech2Text, At):
    aligner = ForcedAligner(kind(**files))
    [found] = aligner(sys.argv[2], [sys.argv[3]])
    print(aligner.sample_rate, f"{found.start:.2f} {found.end:.2f} {found.score:.4f}")
"""


@pytest.fixture
def speech(packed: Path, tmp_path: Path) -> tuple[Path, str]:
    """A recording and its text."""
    data = packed / "dump/raw/test"
    samples, rate = soundfile.read(packed / read_table(data / "wav.scp")[UTTERANCE])
    soundfile.write(tmp_path / "speech.wav", samples, rate)
    return tmp_path / "speech.wav", read_table(data / "text")[UTTERANCE]


@pytest.fixture
def run(forked_python: str, packed: Path, tmp_path: Path) -> Espnet:
    def run(*words: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [forked_python, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_align_reads_a_packed_model(
    packed: Path, speech: tuple[Path, str], run: Espnet
) -> None:
    """It takes every ASR model for one of 16 kHz; our class knows the rate."""
    path, text = speech
    words = ("align", path, "--text", text, "--model", packed / ARCHIVE)
    done = run(*PROGRAM, *words, "--device", "cpu", "--tokens")
    assert done.returncode == 0, done.stderr[-3000:]
    start, end, score, shown = done.stdout.splitlines()[0].split("\t")
    assert shown == text
    tokens = [line.split("\t")[3] for line in done.stdout.splitlines()[1:]]
    assert "".join(tokens).replace("<space>", " ") == text
    assert 0 <= float(start) < float(end) <= soundfile.info(path).duration
    ours = run(
        *("-m", "espnet_cif_hkd", "-c", OURS, packed / ARCHIVE, path, text, "16000")
    )
    assert ours.returncode == 0, ours.stderr[-3000:]
    at_its_rate, at_16_khz = ours.stdout.splitlines()[-2:]
    assert at_16_khz == f"16000 {start} {end} {score}"
    assert at_its_rate.split()[0] == "8000"


def test_transcribe_says_that_it_takes_other_models(
    packed: Path, speech: tuple[Path, str], run: Espnet
) -> None:
    """It builds a model of ESPnet's task s2t, whatever the archive has."""
    words = ("transcribe", speech[0], "--model", packed / ARCHIVE, "--device", "cpu")
    done = run(*PROGRAM, *words)
    assert done.returncode != 0
    assert re.search(
        r"does not look like a model for `espnet transcribe`: it was published with "
        r"asr_(train_config|model_file)",
        done.stderr,
    )


def test_without_the_launcher_align_does_not_know_our_classes(
    packed: Path, speech: tuple[Path, str], run: Espnet
) -> None:
    path, text = speech
    words = ("align", path, "--text", text, "--model", packed / ARCHIVE)
    done = run("-m", "espnet2.bin.cli", *words, "--device", "cpu")
    assert done.returncode != 0
    assert "must be one of" in done.stderr
