"""Configurations of egs3 train the same models as those of egs2."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("frontend", "specaug", "normalize", "encoder", "decoder", "model")


def merged(path: Path) -> dict[str, Any]:
    """A configuration with those that it names in ``defaults``."""
    own = yaml.safe_load(path.read_text())
    conf: dict[str, Any] = {}
    for base in own.pop("defaults", ["_self_"]):
        update(
            conf, own if base == "_self_" else merged(path.with_name(f"{base}.yaml"))
        )
    return conf


def update(conf: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(conf.get(key), dict):
            update(conf[key], value)
        else:
            conf[key] = value


@pytest.mark.parametrize("system", ["cif", "cif_hkd"])
@pytest.mark.parametrize("corpus", ["fotaq", "aishell"])
def test_the_model_and_the_training_are_those_of_egs2(corpus: str, system: str) -> None:
    new = merged(ROOT / f"egs3/{corpus}/esp2_asr/conf/training_{system}.yaml")
    path = ROOT / f"egs2/{corpus}/asr_hkd/conf/train_asr_{system}.yaml"
    old = yaml.safe_load(path.read_text())
    model = new["model"]
    if old["model_conf"]["criterion"] is None:
        old["model_conf"].pop("criterion")
    for part in PARTS:
        assert model[part] == old[part]
        assert model.get(f"{part}_conf") == old.get(f"{part}_conf")
    optimizer, scheduler = dict(new["optimizer"]), dict(new["scheduler"])
    assert optimizer.pop("_target_").lower() == f"torch.optim.{old['optim']}"
    assert optimizer == old["optim_conf"]
    name = scheduler.pop("_target_").rpartition(".")[2]
    assert name.lower() == old["scheduler"]
    assert scheduler == old["scheduler_conf"]
    trainer = new["trainer"]
    assert trainer["max_epochs"] == old["max_epoch"]
    assert trainer["gradient_clip_val"] == old["grad_clip"]
    batches = new["dataloader"]["train"]["iter_factory"]["batches"]
    assert batches["batch_bins"] == old["batch_bins"]
    assert batches["type"] == old["batch_type"]
    assert new["best_model_criterion"][0][1] == old["keep_nbest_models"]
    assert new["seed"] == old["seed"]


@pytest.mark.parametrize("corpus", ["fotaq", "aishell"])
def test_decoding_is_that_of_egs2(corpus: str) -> None:
    new = merged(ROOT / f"egs3/{corpus}/esp2_asr/conf/inference.yaml")
    path = ROOT / f"egs2/{corpus}/asr_hkd/conf/decode_asr.yaml"
    old = yaml.safe_load(path.read_text())
    assert new["model"]["beam_size"] == old["beam_size"]
    assert new["model"]["ctc_weight"] == old["ctc_weight"]
    training = merged(ROOT / f"egs3/{corpus}/esp2_asr/conf/training_cif.yaml")
    [(criterion, count, _)] = training["best_model_criterion"]
    averaged = f"{criterion.replace('/', '.')}.ave_{count}best.pth"
    assert new["model"]["asr_model_file"].endswith(averaged)


@pytest.mark.parametrize("corpus", ["fotaq", "aishell"])
def test_data_preparation_is_that_of_egs2(corpus: str) -> None:
    """Links to files, because a source archive has no links to folders."""
    local = ROOT / f"egs3/{corpus}/esp2_asr/local"
    theirs = ROOT / f"egs2/{corpus}/asr_hkd/local"
    files = [path for path in theirs.iterdir() if path.is_file()]
    assert {path.name for path in files} == {path.name for path in local.iterdir()}
    for path in files:
        assert (local / path.name).resolve() == path.resolve()
