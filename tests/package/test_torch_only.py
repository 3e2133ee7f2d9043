"""The operation and the losses where nothing but torch is installed."""

import importlib.metadata
import os
import re
from pathlib import Path

import pytest
from without_packages import packages_with, run_json

ROOT = Path(__file__).parents[2]
PROBE = """
import importlib, importlib.metadata, json, pkgutil, sys
import espnet_cif_hkd
from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.losses import contrastive_loss, regression_loss, rnnt_loss
for package in (espnet_cif_hkd.cif, espnet_cif_hkd.losses):
    for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(info.name)
import torch
hs = torch.randn(1, 4, 2, requires_grad=True)
fired = integrate_and_fire(hs, torch.full((1, 4), 0.5), torch.tensor([4]))
fired.embeddings.sum().backward()
lengths = torch.tensor([3])
vectors = torch.randn(1, 3, 4)
contrastive_loss(vectors, vectors, lengths, 0.1, None)
loss = regression_loss(vectors, vectors, lengths)
logits = torch.zeros(1, 2, 2, 4, requires_grad=True)
rnnt = rnnt_loss(logits, lengths[:, None], torch.tensor([2]), torch.tensor([1]))
rnnt.sum().backward()
found = importlib.metadata.distributions()
installed = sorted({one.metadata["Name"].lower() for one in found})
paths = round(rnnt.exp().item())
print(json.dumps([fired.lengths.tolist(), loss.tolist(), paths, installed]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("packages", [["torch"], ["torch", "numpy"]], ids="+".join)
def test_cif_and_losses_import_and_run(tmp_path, packages):
    folder = packages_with(tmp_path / "packages", packages)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    lengths, loss, paths, installed = run_json(
        folder, PROBE, tmp_path, environment, None
    )
    assert lengths == [2] and loss == [0, 0, 0] and paths == 32
    absent = {"espnet", "transformers", "soundfile", "pyyaml", "safetensors"}
    assert "torch" in installed and not absent & set(installed)
    assert ("numpy" in installed) is ("numpy" in packages)


def test_torch_itself_needs_none_of_what_is_hidden():
    needed = {
        re.split(r"[^\w-]", line, maxsplit=1)[0].lower()
        for line in importlib.metadata.requires("torch") or []
        if "extra ==" not in line
    }
    assert not needed & {"pyyaml", "transformers", "soundfile", "safetensors"}
