"""A training that was killed while it saved continues, wherever the file was cut."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from espnet2.tasks.asr import ASRTask
from espnet2.tasks.lm import LMTask
from espnet2.train.trainer import Trainer
from finished_recipe import ASR_EXP, finished, recipe, run

from espnet_cif_hkd.io.torch_file import is_complete
from espnet_cif_hkd.plugin import register, trainer

__all__ = ["finished", "recipe"]
LM_EXP = Path("exp/lm_lm_en_char")


class Killed(BaseException):
    """Stands for SIGKILL."""


def train(epochs: int, exp: Path = ASR_EXP) -> int:
    more = f"--max_epoch {epochs} --keep_nbest_models 5"
    if exp == LM_EXP:
        return run(
            use_lm="true", stage="7", stop_stage="7", lm_args=more, lm_exp=str(exp)
        )
    return run(stage="11", stop_stage="11", asr_args=more, asr_exp=str(exp))


def killed_while_saving(monkeypatch: pytest.MonkeyPatch, name: str, size: int) -> None:
    """Let the next ``torch.save`` of a file write some bytes and no more."""
    save = torch.save

    def cut(states: object, path: Any, **options: Any) -> None:
        save(states, path, **options)
        if Path(path).name == name:
            content = Path(path).read_bytes()
            Path(path).write_bytes(content[: min(size, len(content) - 1)])
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(torch, "save", cut)
        train(2)


def parameters(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return state


def same(one: Path, other: Path) -> bool:
    left, right = parameters(one), parameters(other)
    return list(left) == list(right) and all(
        torch.equal(value, right[key]) for key, value in left.items()
    )


@pytest.fixture(scope="module")
def expected(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second epoch of a training that nobody kills."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("expected") / "copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train(2) == 0
    assert not (folder / ASR_EXP / "checkpoint.previous.pth").exists()
    return folder / ASR_EXP / "2epoch.pth"


@pytest.mark.parametrize(
    ("name", "size"),
    [("checkpoint.pth", 0), ("checkpoint.pth", 10**9), ("2epoch.pth", 100)],
)
def test_killed_while_saving_equals_not_killed(
    expected: Path,
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    size: int,
) -> None:
    killed_while_saving(monkeypatch, name, size)
    assert not is_complete(ASR_EXP / name)
    capfd.readouterr()
    assert train(2) == 0
    printed = capfd.readouterr().out
    if name == "checkpoint.pth":
        assert "repeats an epoch" in printed
    else:
        assert "2epoch.pth is written again" in printed
    assert same(ASR_EXP / "2epoch.pth", expected)
    assert (ASR_EXP / "latest.pth").resolve().name == "2epoch.pth"
    assert not (ASR_EXP / "checkpoint.previous.pth").exists()


@pytest.mark.filterwarnings("ignore:The stats of the previous epoch:UserWarning")
@pytest.mark.parametrize(
    ("exp", "share"), [(ASR_EXP, 0.37), (ASR_EXP, 0.999), (LM_EXP, 0.0)]
)
def test_a_damaged_checkpoint_without_another_is_no_end(
    recipe: Path, capfd: pytest.CaptureFixture[str], exp: Path, share: float
) -> None:
    first = Path(shutil.copy(exp / "1epoch.pth", recipe / "first.pth"))
    checkpoint = exp / "checkpoint.pth"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(share * len(content))])
    capfd.readouterr()
    assert train(2, exp) == 0
    printed = capfd.readouterr().out
    assert "continues from the parameters in" in printed and "1epoch.pth" in printed
    assert "optimizer and scheduler" in printed
    assert is_complete(checkpoint) and is_complete(exp / "2epoch.pth")
    # Epoch 2 started from the parameters of epoch 1, which are kept.
    assert same(exp / "before_damage/1epoch.pth", first)
    assert not same(first, exp / "2epoch.pth")


def test_nothing_complete_starts_from_the_beginning(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("checkpoint.pth", "1epoch.pth"):
        (ASR_EXP / name).write_bytes(b"PK")
    assert train(1) == 0
    assert "starts from the beginning" in capfd.readouterr().out
    assert is_complete(ASR_EXP / "1epoch.pth")


@pytest.mark.parametrize("task", [ASRTask, LMTask])
def test_tasks_have_the_trainer_but_with_deepspeed(
    monkeypatch: pytest.MonkeyPatch, task: Any
) -> None:
    register()
    assert task.trainer is trainer.SafeTrainer
    monkeypatch.setattr(task, "trainer", Trainer)
    monkeypatch.setattr(trainer.importlib.util, "find_spec", lambda name: name)
    trainer.install(task)
    assert task.trainer is Trainer


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 30, -1, -21])
def test_cut_files_are_recognised(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(3)}, path)
    assert is_complete(path)
    path.write_bytes(path.read_bytes()[:cut])
    assert not is_complete(path)


def test_old_files_of_torch_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    assert is_complete(path)
    assert not is_complete(tmp_path / "none.pth")
