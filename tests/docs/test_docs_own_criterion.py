"""The example of docs/own_criterion.md runs as the page says, by both engines."""

import re
import sys
from pathlib import Path

import pytest
import tiny_recipe
import yaml
from espnet2.bin import asr_train

import espnet_cif_hkd
from espnet_cif_hkd.distill import criterion_choices
from espnet_cif_hkd.distill.taps import MODEL_TAPS
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.user_modules import USER_MODULE_VARIABLE
from espnet_cif_hkd.recipe.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs/own_criterion.md"


def blocks(kind):
    """The blocks of code of the page."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_table_of_taps_is_that_of_the_models():
    lines = re.findall(r"^\| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    (_, _, *models), *rows = (line.split(" | ") for line in lines)
    assert sorted(models) == [f"`model: {name}`" for name in sorted(MODEL_TAPS)]
    for n, model in enumerate(models, 2):
        found = set()
        for row in rows:
            names = set(re.findall("`(.+?)`", row[0])) if row[n] != "no" else set()
            if only := re.fullmatch("`(.+)` only", row[n]):
                names = {name for name in names if name.endswith(only[1])}
            found |= names
        assert found - {"layer:N"} == MODEL_TAPS[model[len("`model: ") : -1]], model


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The tiny recipe with the page's module; its YAML for both models."""
    tiny_recipe.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    assert sum(bool(line.strip()) for line in code.splitlines()) < 30
    Path("my_criteria.py").write_text(code)
    single, several = (yaml.safe_load(block)["model_conf"] for block in blocks("yaml"))
    del several["criteria"]["text"]  # needs a BERT
    several["criteria"]["deep"]["layer"] = 1
    for name, text, conf in (
        ("cif", tiny_recipe.CIF_CONFIG, single),
        ("hybrid", tiny_recipe.ASR_CONFIG + "model: hybrid\n", several),
    ):
        config = yaml.safe_load(text) | {"num_att_plot": 0}
        config["model_conf"].update(conf)
        Path(f"conf/{name}.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


@pytest.mark.slow
def test_with_espnets_commands(recipe, run_python):
    """What ``asr.sh --python "python3 -m espnet_cif_hkd --user_module …"`` runs."""
    assert any("--user_module my_criteria" in block for block in blocks("sh"))
    tokens = ["<blank>", "<unk>", "a", "<space>", "b", "<sos/eos>"]
    Path("tokens.txt").write_text("\n".join(tokens) + "\n")
    words = ["--config", "conf/hybrid.yaml", "--output_dir", "exp"]
    words += ["--token_list", "tokens.txt", "--token_type", "char"]
    words += ["--frontend_conf", "fs=8k"]
    for part in ("train", "valid"):
        for name, kind in (("wav.scp", "speech,sound"), ("text", "text,text")):
            words += [f"--{part}_data_path_and_name_and_type"]
            words += [f"source/{part}/{name},{kind}"]
        # The keys alone matter to batch_type: unsorted.
        words += [f"--{part}_shape_file", f"source/{part}/utt2spk"]
    launcher = ["espnet_cif_hkd", "--user_module", "my_criteria"]
    done = run_python("-m", *launcher, "-m", "espnet2.bin.asr_train", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "deep.loss_own=" in done.stderr
    assert Path("exp/valid.acc.ave.pth").exists()
    # The option left out.
    espnet_cif_hkd.register()
    with pytest.raises(UserError, match=r"not 'own_encoder'.*--user_module"):
        asr_train.main(cmd=words)


@pytest.fixture
def forgotten(monkeypatch):
    """The page's module is imported by this test alone."""
    monkeypatch.setenv(USER_MODULE_VARIABLE, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("my_criteria", None)
    criterion_choices.classes.pop("own_encoder", None)


@pytest.mark.slow
def test_with_the_engine_and_its_checks(recipe, forgotten, capfd):
    """Decoding is a process of its own, in which the module is imported, too."""
    options = tiny_recipe.options(lang="en", asr_config="conf/cif.yaml", nj="1")
    engine = ["--user_module", "my_criteria", *options]
    for change, message in (
        ("criterion_conf.lyer=1", "'lyer'; OwnEncoder has the options layer, weight"),
        # Other tests of this process may have registered more.
        ("criterion=own", "criterion must be one of hkd, frames, .*own_encoder, not"),
    ):
        assert main([*engine, "--asr_args", f"--model_conf {change}"]) == 1
        error = capfd.readouterr().err
        (line,) = [x for x in error.splitlines() if x.startswith("error: ")]
        assert re.search(message, line)
        assert not Path("data/train").exists()
    assert main([*engine, "--stop_stage", "12"]) == 0
    folder = Path("exp/asr_cif_raw_en_char")
    assert "loss_own=" in (folder / "train.log").read_text()
    assert len(list(folder.glob("decode*/test/text"))) == 1
