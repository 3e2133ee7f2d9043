"""What 0.2.0 made works as before: gradients, a checkpoint, a packed model, its YAML.

tests/data/v02 holds files that the code of 0.2.0 wrote: ``make_gradients.py`` there
made the gradients; 15 epochs of support/tiny_recipe.py with ``conf/hkd.yaml`` in
``experiment.zip``, stages 1 to 14, made the rest.
"""

import functools
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_recipe
import torch
import yaml
from espnet2.bin import asr_train
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd import Speech2Text, register
from espnet_cif_hkd.plugin.compat import Conv2dSubsampling

DATA = Path(__file__).resolve().parents[1] / "data/v02"
EXP = Path("exp/asr_hkd_raw_en_char")
DECODING = {"beam_size": 2, "ctc_weight": 0.3, "maxlenratio": -5.0}
# What 0.2.0 recognised in the recordings of the tiny recipe's test set.
TEXTS = {"spk0-test0": "ab", "spk1-test1": "ba", "spk0-test2": "a a"}

# The model was trained with ESPnet 202511 and its transformer encoder.
of_the_same_espnet = pytest.mark.skipif(
    Conv2dSubsampling.__module__.startswith("espnet2.legacy"),
    reason="ESPnet 202611 renamed parameters of Conv2dSubsampling, and refuses the "
    "numpy scalars in checkpoints of 202511",
)


def test_gradients_of_hkd_have_the_bits_of_v02(monkeypatch):
    """With the processor that computed them, whichever the release of torch."""
    monkeypatch.syspath_prepend(str(DATA))
    import make_gradients as v02

    stored = np.load(DATA / "gradients.npz")
    model, _, stats = v02.step(torch.from_numpy(stored["values"]))
    assert list(stored["names"]) == [name for name, _ in model.named_parameters()]
    log = {k: float(v) for k, v in stats.items() if v is not None}
    gradients = v02.flat(p.grad for p in model.parameters()).numpy()
    assert {"loss_acd", "loss_lrd", "acc_acd", "negatives_acd"} <= set(log)
    if v02.processor() == str(stored["processor"]):
        assert log == json.loads(str(stored["log"]))
        assert np.array_equal(gradients, stored["gradients"])
    assert log == pytest.approx(json.loads(str(stored["log"])), rel=1e-5)
    np.testing.assert_allclose(gradients, stored["gradients"], rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The tiny recipe with the files of 0.2.0's packed model."""
    folder = tiny_recipe.make(tmp_path_factory.mktemp("v02"))
    with zipfile.ZipFile(DATA / "packed.zip") as archive:
        archive.extractall(folder)
    return folder


def recognised(speech2text, folder):
    found = {}
    for name in TEXTS:
        samples, _ = soundfile.read(folder / f"sound/test/{name}.wav")
        found[name] = speech2text(samples)[0][0]
    return found


@of_the_same_espnet
def test_a_packed_model_decodes_the_same_text(recipe, monkeypatch):
    monkeypatch.chdir(recipe)
    model, config = EXP / "12epoch.pth", EXP / "config.yaml"
    speech2text = Speech2Text(str(config), str(model), **DECODING)
    assert recognised(speech2text, recipe) == TEXTS


@pytest.mark.filterwarnings("ignore:Expanding a local model:UserWarning")
@of_the_same_espnet
def test_the_archive_itself_is_read(recipe, monkeypatch, tmp_path):
    zoo = pytest.importorskip(
        "espnet_model_zoo.downloader", reason="what unpacks shared models"
    )
    # Its cache is its own folder among the installed packages otherwise.
    monkeypatch.setattr(
        zoo, "ModelDownloader", functools.partial(zoo.ModelDownloader, tmp_path / "zoo")
    )
    monkeypatch.chdir(tmp_path)
    archive = shutil.copy(DATA / "packed.zip", tmp_path)
    speech2text = Speech2Text.from_pretrained(archive, **DECODING)
    assert recognised(speech2text, recipe) == TEXTS


@pytest.mark.slow
@of_the_same_espnet
def test_a_training_goes_on(recipe, tmp_path, monkeypatch, caplog):
    """From its checkpoint and its YAML, with the optimiser's state."""
    folder = tmp_path / "recipe"
    shutil.copytree(recipe, folder)
    with zipfile.ZipFile(DATA / "experiment.zip") as archive:
        archive.extractall(folder)
    monkeypatch.chdir(folder)
    register()
    build_tiny_bert(folder / "bert")
    arguments = ["--config", "conf/hkd.yaml", "--output_dir", str(EXP)]
    config = yaml.safe_load((EXP / "config.yaml").read_text())
    Path("tokens.txt").write_text("\n".join(config["token_list"]) + "\n")
    arguments += ["--token_list", "tokens.txt", "--token_type", "char"]
    arguments += ["--normalize", "global_mvn", "--normalize_conf"]
    arguments += [f"stats_file={config['normalize_conf']['stats_file']}"]
    arguments += ["--frontend_conf", "fs=8k", "--resume", "true", "--max_epoch", "16"]
    arguments += ["--use_matplotlib", "false", "--use_tensorboard", "false"]
    for part in ("train", "valid"):
        for name, kind in (("wav.scp", "speech,sound"), ("text", "text,text")):
            flag = f"--{part}_data_path_and_name_and_type"
            arguments += [flag, f"source/{part}/{name},{kind}"]
        # The keys alone matter to batch_type: unsorted.
        arguments += [f"--{part}_shape_file", f"source/{part}/utt2spk"]
    with caplog.at_level("INFO"):
        asr_train.main(arguments)
    assert "16epoch results" in caplog.text and " 15epoch results" not in caplog.text
    with (
        zipfile.ZipFile(DATA / "experiment.zip") as archive,
        archive.open(f"{EXP}/checkpoint.pth") as stream,
    ):
        old = torch.load(stream, weights_only=False)
    new = torch.load("exp/asr_hkd_raw_en_char/checkpoint.pth", weights_only=False)
    assert new["model"].keys() == old["model"].keys()
    steps = [
        {int(state["step"]) for state in saved["optimizers"][0]["state"].values()}
        for saved in (old, new)
    ]
    assert steps == [{30}, {32}]
    weight = "criterion.acoustic_projection.weight"
    assert old["model"][weight].shape == (HIDDEN, 8)
    assert not torch.equal(new["model"][weight], old["model"][weight])
