"""Stage 12: on which device, in how many processes, how fast."""

from pathlib import Path

import pytest
import tiny_recipe
import torch

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe import options, paths
from espnet_cif_hkd.recipe.checks import config
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.stages import decode

UTTERANCES = 100


def make_run(**changed: str) -> Run:
    parsed = options.parse(tiny_recipe.options(**changed))
    return Run(parsed, paths.derive(parsed), [], [12])


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A test set of 100 utterances of a second; ESPnet's commands are left out."""
    monkeypatch.chdir(tmp_path)
    folder = Path("dump/raw/test")
    folder.mkdir(parents=True)
    names = [f"u{number:03d}" for number in range(UTTERANCES)]
    for table, value in (
        ("wav.scp", "a.wav"),
        ("text", "a"),
        ("utt2spk", "s"),
        ("utt2num_samples", "8000"),
    ):
        (folder / table).write_text("".join(f"{name} {value}\n" for name in names))
    (folder / "feats_type").write_text("raw\n")
    lines: list[str] = []

    def decoded(jobs: list[list[str]]) -> None:
        lines.append(f"{len(jobs)} jobs, ngpu {jobs[0][jobs[0].index('--ngpu') + 1]}")

    def collected(outputs: list[Path], folder: Path, keys: list[str]) -> None:
        (folder / "text").write_text("".join(f"{key} a\n" for key in keys))

    monkeypatch.setattr(decode, "log", lines.append)
    monkeypatch.setattr(decode, "call", lambda m, one, *_: decoded([one]))
    monkeypatch.setattr(
        decode, "run_jobs", lambda m, jobs, _: decoded([job for job, _ in jobs])
    )
    monkeypatch.setattr(decode, "job_count", lambda wanted, *_: wanted)
    monkeypatch.setattr(decode, "_collect_outputs", collected)
    monkeypatch.setattr(decode, "_write_rtf", lambda *_: "fast")
    monkeypatch.setattr(decode.stamps, "require_model", lambda *_: None)
    return lines


@pytest.mark.parametrize(
    ("gpu", "jobs", "device"),
    [
        ("false", "2 jobs, ngpu 0", "2 CPU processes"),
        ("true", "1 jobs, ngpu 1", "a GPU"),
    ],
)
def test_one_process_on_a_gpu_several_without(
    logged: list[str], gpu: str, jobs: str, device: str
) -> None:
    decode.decode(make_run(gpu_inference=gpu))
    assert f"decoding {UTTERANCES} utterances on {device}," in logged[0]
    assert logged[1] == jobs


def test_the_last_line_is_the_real_time_factor_with_start_up(
    logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([100.0, 150.0])
    monkeypatch.setattr(decode.time, "monotonic", lambda: next(times))
    decode.decode(make_run())
    assert logged[-1] == (
        "stage 12: 100.0 s of audio in 50.0 s with start-up: real-time factor 0.500"
    )


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(gpu_inference="true")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--gpu_inference true, but no GPU is visible"):
        config.check_gpu(run, None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config.check_gpu(run, None)
