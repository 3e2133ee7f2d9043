"""The patch of docs/upstream.md: ESPnet finds our classes by entry points."""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import espnet2
import pytest
import torch
from our_metadata import recorded

from espnet_cif_hkd import UserError
from espnet_cif_hkd.plugin import registration

__all__ = ["recorded"]

ROOT = Path(__file__).parents[2]
FILE = "espnet2/train/class_choices.py"
# ESPnet with the patched file; the commands do not go through our launcher.
PROBE = """
import importlib.util, json, sys
name = "espnet2.train.class_choices"
spec = importlib.util.spec_from_file_location(name, sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
from espnet2.tasks import asr
words = ["--frontend", "kaldi_fbank", "--encoder", "cif_conformer", "--decoder", "CIF",
         "--model", "cif", "--token_list", "x", "--output_dir", "x"]
args = asr.ASRTask.get_parser().parse_args(words)
chosen = [args.frontend, args.encoder, args.decoder, args.model]
launched = "espnet_cif_hkd.plugin.registration" in sys.modules
before = asr.decoder_choices.get_class("cif")
import espnet_cif_hkd
espnet_cif_hkd.register()
espnet_cif_hkd.register()
tables = {
    choices.name: [list(choices.classes), list(choices.choices())]
    for choices in (asr.preprocessor_choices, asr.frontend_choices, asr.encoder_choices,
                    asr.decoder_choices, asr.model_choices)
}
print(json.dumps({
    "chosen": chosen, "launched": launched, "tables": tables,
    "same": before is asr.decoder_choices.get_class("cif") is espnet_cif_hkd.CIFDecoder,
    "trainer": asr.ASRTask.trainer.__name__,
}))
"""


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the installed file with the patch of the page."""
    folder = tmp_path_factory.mktemp("espnet")
    copy = folder / FILE
    copy.parent.mkdir(parents=True)
    installed = Path(espnet2.__path__[0]).parent / FILE
    copy.write_text(installed.read_text(encoding="utf-8"), encoding="utf-8")
    page = (ROOT / "docs/upstream.md").read_text(encoding="utf-8")
    (diff,) = re.findall(r"^```diff\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    subprocess.run(
        ["git", "apply", "-p1"], cwd=folder, input=diff, text=True, check=True
    )
    assert copy.read_text(encoding="utf-8") != installed.read_text(encoding="utf-8")
    return copy


@pytest.mark.slow
def test_every_registered_class_is_an_entry_point(recorded: Path) -> None:
    (record,) = importlib.metadata.distributions(path=[str(recorded)])
    found = {
        (one.group, one.name): tuple(one.value.split(":"))
        for one in record.entry_points
        if one.group.startswith("espnet2.")
    }
    assert found == {
        (f"espnet2.{table.removesuffix('_choices')}", name): target
        for table, names in registration.REGISTERED.items()
        for name, target in names.items()
    }


@pytest.mark.slow
def test_espnets_commands_know_our_classes(patched: Path, recorded: Path) -> None:
    places = os.pathsep.join([str(recorded), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(patched)],
        env={**os.environ, "PYTHONPATH": places},
        cwd=patched.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["chosen"] == ["kaldi_fbank", "cif_conformer", "cif", "cif"]
    assert not found["launched"]
    # register() keeps to the entry points.
    for table, names in registration.REGISTERED.items():
        classes, choices = found["tables"][table.removesuffix("_choices")]
        assert not set(names) & set(classes)
        assert set(names) <= set(choices) and len(choices) == len(set(choices))
    assert found["same"] and found["trainer"] == "SafeTrainer"


@pytest.fixture
def choices_of(
    patched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], ModuleType]:
    """Loads the patched module where a package declares these decoders."""

    def load(declared: str) -> ModuleType:
        record = tmp_path / "another-1.dist-info"
        record.mkdir()
        (record / "METADATA").write_text("Metadata-Version: 2.1\nName: another\n")
        (record / "entry_points.txt").write_text(f"[espnet2.decoder]\n{declared}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        spec = importlib.util.spec_from_file_location("patched_choices", patched)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # typeguard looks there
        spec.loader.exec_module(module)
        return module

    return load


def test_a_name_of_espnet_stays_espnets(
    choices_of: Callable[[str], ModuleType],
) -> None:
    module = choices_of("linear = torch.nn:Bilinear\nOther = torch.nn:Identity")
    table = module.ClassChoices("decoder", {"linear": torch.nn.Linear}, torch.nn.Module)
    assert table.get_class("linear") is torch.nn.Linear
    assert table.get_class("other") is table.get_class("Other") is torch.nn.Identity
    assert [name for name in table.choices() if name in ("linear", "other")] == [
        *("linear", "other")
    ]


def test_the_base_class_is_checked_when_a_class_is_chosen(
    choices_of: Callable[[str], ModuleType],
) -> None:
    module = choices_of("bad = json:JSONDecoder\nmissing = no_such_module:Decoder")
    table = module.ClassChoices("decoder", {}, torch.nn.Module)
    with pytest.raises(ValueError, match=r"must be Module, but got .*JSONDecoder"):
        table.get_class("bad")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        table.get_class("missing")


def test_registration_refuses_a_name_that_another_package_declares(
    choices_of: Callable[[str], ModuleType],
) -> None:
    module = choices_of("ours = torch.nn:Identity")
    table = module.ClassChoices("decoder", {}, torch.nn.Module)
    registration.check_choice(table, "ours", torch.nn.Identity)
    with pytest.raises(UserError, match=r"'ours' is already torch\.nn\S*Identity"):
        registration.check_choice(table, "ours", torch.nn.Linear)
