"""The parts that ESPnet 3 loads by their dotted paths, one by one."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from ranks import run_ranks

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe import espnet3
from espnet_cif_hkd.recipe.stages.sclite import align

needs_espnet3 = pytest.mark.espnet3


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("espnet3", "pip install espnet==202611"),
        ("dask_jobqueue", "pip install dask-jobqueue"),
        ("distributed", "pip install 'dask[distributed]'"),
    ],
)
def test_what_is_missing_is_named_with_the_command_of_pip(
    gone: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def found(name: str) -> object:
        return None if name == gone else "found"

    monkeypatch.setattr(espnet3.importlib.util, "find_spec", found)
    with pytest.raises(SystemExit) as stopped:
        espnet3.main(["--stages", "train"])
    assert stopped.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line


@needs_espnet3
@pytest.mark.slow
def test_the_task_builds_our_models() -> None:
    from espnet3.utils.task_utils import get_espnet_model

    conf = {
        "token_list": ["<blank>", "<unk>", "a", "<sos/eos>"],
        "frontend": "kaldi_fbank",
        "frontend_conf": {"fs": 8000, "n_mels": 8},
        "encoder": "cif_conformer",
        "encoder_conf": {
            "output_size": 8,
            "attention_heads": 2,
            "linear_units": 8,
            "num_blocks": 1,
            "input_channels": 2,
            "pooling_layers": [],
        },
        "decoder": "cif",
        "decoder_conf": {"attention_heads": 2, "linear_units": 8, "num_blocks": 1},
        "model": "cif",
        "model_conf": {"criterion": None},
    }
    model = get_espnet_model("espnet_cif_hkd.plugin.espnet3.ASRTask", conf)
    parts = [model, model.frontend, model.encoder, model.decoder]
    assert {type(part).__module__.split(".")[0] for part in parts} == {"espnet_cif_hkd"}


@needs_espnet3
@pytest.mark.slow
@pytest.mark.parametrize("names", [True, False])
def test_batches_have_names_where_the_model_reads_them(names: bool) -> None:
    from espnet_cif_hkd.plugin.espnet3 import CollateFn

    def sample(length: int, name: str) -> dict[str, Any]:
        return {"speech": np.ones(length, np.float32), "utt_id": name}

    uids, batch = CollateFn(names)([("0", sample(2, "u1")), ("1", sample(3, "u2"))])
    assert uids == ["0", "1"]
    assert batch["speech"].shape == (2, 3)
    assert batch["speech_lengths"].tolist() == [2, 3]
    assert batch.get("utt_id") == (["u1", "u2"] if names else None)
    assert names or all(map(torch.is_tensor, batch.values()))


@needs_espnet3
@pytest.mark.slow
def test_models_are_prepared_with_the_optimizers_of_lightning() -> None:
    from espnet_cif_hkd.models.encoder_start import EncoderStart
    from espnet_cif_hkd.plugin.espnet3 import TrainingCallback

    encoder = torch.nn.Linear(1, 1)
    start = EncoderStart(encoder, lr_factor=1.0, freeze_updates=1)
    with pytest.raises(UserError, match=r"espnet_cif_hkd\.recipe\.espnet3\.main"):
        _ = start.frozen
    model = SimpleNamespace(begin_training=start.attach)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=1.0)
    trainer = SimpleNamespace(optimizers=[optimizer], world_size=1)
    TrainingCallback().on_train_start(trainer, SimpleNamespace(model=model))
    assert start.frozen
    optimizer.step()
    assert not start.frozen


class Squares(torch.nn.Module):
    """A loss that is a mean over the items of a batch; their number is its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, items: torch.Tensor) -> tuple[torch.Tensor, dict, torch.Tensor]:
        loss = (self.scale * items).square().mean()
        return loss, {}, torch.tensor(len(items))


SHARES = (torch.tensor([1.0, 2.0, 5.0]), torch.tensor([7.0]))


def gradient(rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradient of DDP, and the losses in training and validation."""
    from espnet_cif_hkd.plugin.espnet3 import weighted_by_batch

    model = Squares()
    model.register_forward_hook(weighted_by_batch)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    loss, _, _ = parallel(SHARES[rank])
    loss.backward()
    model.eval()
    return model.scale.grad, loss.detach(), model(SHARES[rank])[0].detach()


@needs_espnet3
@pytest.mark.slow
def test_two_processes_train_as_one_with_both_batches() -> None:
    ranks = run_ranks(gradient)
    model = Squares()
    loss, _, _ = model(torch.cat(SHARES))
    loss.backward()
    for rank, (found, trained, validated) in enumerate(ranks):
        torch.testing.assert_close(found, model.scale.grad)
        torch.testing.assert_close(validated, model(SHARES[rank])[0].detach())
        assert not torch.allclose(trained, validated)


@needs_espnet3
@pytest.mark.slow
def test_our_batches_replace_espnets_but_not_the_users() -> None:
    from omegaconf import OmegaConf

    from espnet_cif_hkd.recipe.espnet3.system import with_our_parts

    def conf(target: str) -> Any:
        collate = {"_target_": target}
        part = {"iter_factory": {"collate_fn": collate}}
        loader = {"collate_fn": collate, "train": part, "valid": part}
        return OmegaConf.create(
            {"dataloader": loader, "trainer": {"callbacks": [{"_target_": "user.C"}]}}
        )

    given = conf("espnet2.train.collate_fn.CommonCollateFn")
    made = with_our_parts(given)
    assert made.dataloader.collate_fn.names is False
    for part in ("train", "valid"):
        assert made.dataloader[part].iter_factory.collate_fn.names is True
    callbacks = [one._target_ for one in made.trainer.callbacks]
    assert callbacks == ["user.C", "espnet_cif_hkd.plugin.espnet3.TrainingCallback"]
    assert given == conf("espnet2.train.collate_fn.CommonCollateFn")
    users = with_our_parts(conf("user.Collate"))
    assert users.dataloader == conf("user.Collate").dataloader


@needs_espnet3
@pytest.mark.slow
@pytest.mark.parametrize("given", [15000, 7])
def test_defaults_of_espnets_scheduler_are_not_those_of_another(given: int) -> None:
    from omegaconf import OmegaConf

    from espnet_cif_hkd.recipe.espnet3.system import drop_defaults

    ours, theirs = "torch.optim.lr_scheduler.StepLR", "espnet2.schedulers.warmup_lr.X"
    defaults = OmegaConf.create({"_target_": theirs, "warmup_steps": 15000, "gamma": 1})
    conf = OmegaConf.create({"_target_": ours, "warmup_steps": given, "gamma": 1})
    drop_defaults(conf, defaults)
    kept = {"warmup_steps": given} if given == 7 else {}  # an error of the user
    assert conf == {"_target_": ours, "gamma": 1, **kept}


PAIRS = [("a b c", "a x"), ("A  b", ""), ("aba c", "ABA c")]


@needs_espnet3
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["CER", "WER"])
def test_rates_are_those_of_stage_13(kind: str, tmp_path: Path) -> None:
    from espnet_cif_hkd.recipe.espnet3 import metrics

    def units(text: str) -> list[str]:
        words = text.split()
        return words if kind == "WER" else list(" ".join(words))

    found = [align(units(ref), units(hyp)) for ref, hyp in PAIRS]
    errors, total = sum(a.errors for a in found), sum(a.n_ref for a in found)
    for name, column in (("ref", 0), ("hyp", 1)):
        lines = "".join(f"u{n} {pair[column]}\n" for n, pair in enumerate(PAIRS))
        (tmp_path / f"{name}.scp").write_text(lines)
    metric = getattr(metrics, kind)()
    data = {name: tmp_path / f"{name}.scp" for name in ("ref", "hyp")}
    for _ in range(2):
        result = metric(data, "test", tmp_path)
        assert result == {kind: round(100 * errors / total, 2)}
    report = (tmp_path / "test" / f"result_{kind.lower()}.txt").read_text()
    assert "u2" in report and "Sum/Avg" in report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", np.full(800, 0.5), 8000)
    (tmp_path / "wav.scp").write_text("u2 a.wav\nu1 a.wav\n")
    (tmp_path / "text").write_text("u1 X\nu2 Y  Z\n")
    return tmp_path


@needs_espnet3
@pytest.mark.slow
@pytest.mark.parametrize(("fs", "samples"), [(8000, 800), (16000, 1600)])
def test_samples_of_a_kaldi_folder(folder: Path, fs: int, samples: int) -> None:
    from espnet_cif_hkd.recipe.espnet3.data import KaldiDataset

    data = KaldiDataset(".", fs, folder)
    assert [data[i]["utt_id"] for i in range(len(data))] == ["u1", "u2"]
    assert data[1]["text"] == "Y Z"
    assert data[0]["speech"].shape == (samples,)
    assert data[0]["speech"].dtype == np.float32


def _lose(name: str, text: str | None) -> Callable[[Path], object]:
    def change(folder: Path) -> object:
        path = folder / name
        return path.unlink() if text is None else path.write_text(text)

    return change


def _stereo(folder: Path) -> None:
    soundfile.write(folder / "a.wav", np.zeros((800, 2)), 8000)


@needs_espnet3
@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_lose("text", None), "text is missing: run the stage create_dataset"),
        (_lose("wav.scp", ""), "lists no recording"),
        (_lose("text", "u1 X\n"), "no transcript of u2"),
        (_lose("text", "u1 X\nu2 Y\nu3 Z\n"), "no recording of u3"),
        (_lose("segments", "u1 a 0 1\n"), "segments: recipes of egs3 read one"),
        (_lose("a.wav", ""), "a.wav"),
        (_stereo, "2 channels"),
    ],
)
def test_wrong_data_is_one_clear_line(
    folder: Path, change: Callable[[Path], object], words: str
) -> None:
    from espnet_cif_hkd.recipe.espnet3.data import KaldiDataset

    change(folder)
    with pytest.raises(UserError, match=words) as error:
        KaldiDataset(".", 8000, folder)[0]
    assert "\n" not in str(error.value)
