"""ESPnet's tables of classes after registration."""

import importlib
import importlib.util
import sys
import types

import pytest
import torch
from espnet2.tasks import asr
from espnet2.train.class_choices import ClassChoices

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.models.cif import CIFASRModel
from espnet_cif_hkd.plugin import registration as plugin


@pytest.fixture
def unregistered(monkeypatch):
    """ESPnet's real tables, without our names for the time of a test."""
    for choices in (asr.encoder_choices, asr.decoder_choices, asr.model_choices):
        others = {
            k: v
            for k, v in choices.classes.items()
            if k not in ("cif", "cif_conformer")
        }
        monkeypatch.setattr(choices, "classes", others)


def test_register_enters_all_classes(unregistered):
    assert "cif" not in asr.decoder_choices.classes
    plugin.register()
    assert asr.decoder_choices.get_class("cif") is CIFDecoder
    assert asr.model_choices.get_class("cif") is CIFASRModel
    assert asr.encoder_choices.get_class("cif_conformer") is CIFConformerEncoder


def test_register_again_changes_nothing(unregistered):
    plugin.register()
    before = dict(asr.decoder_choices.classes), dict(asr.model_choices.classes)
    plugin.register()
    assert (asr.decoder_choices.classes, asr.model_choices.classes) == before


def test_espnets_own_classes_stay(unregistered):
    before = dict(asr.decoder_choices.classes)
    plugin.register()
    assert before.items() <= asr.decoder_choices.classes.items()


def test_parser_of_espnet_accepts_the_names(unregistered):
    plugin.register()
    parser = asr.ASRTask.get_parser()
    names = ["--encoder", "CIF_Conformer", "--decoder", "cif", "--model", "CIF"]
    args = parser.parse_args(["--output_dir", "x", "--token_list", "x", *names])
    chosen = (args.encoder, args.decoder, args.model)
    assert chosen == ("cif_conformer", "cif", "cif")


def test_name_of_another_class_is_refused(unregistered):
    other = asr.model_choices.classes["espnet"]
    asr.model_choices.classes["cif"] = other
    with pytest.raises(UserError, match=r"model 'cif' is already espnet2\S*ASRModel"):
        plugin.register()
    assert asr.model_choices.classes["cif"] is other
    assert "cif" not in asr.decoder_choices.classes, "half registered"


def test_class_of_another_kind_is_refused():
    choices = ClassChoices("decoder", {}, type_check=torch.nn.Module)
    with pytest.raises(UserError, match="is no Module"):
        plugin.check_choice(choices, "cif", dict)


@pytest.fixture
def stand_in_task(tmp_path, monkeypatch):
    """A module that replaces ``espnet2.tasks.asr`` and can be imported again."""
    (tmp_path / "stand_in_task.py").write_text(
        "from espnet2.train.class_choices import ClassChoices\n"
        "decoder_choices = ClassChoices('decoder', {})\n"
        "seen_while_running = dict(decoder_choices.classes)\n"
        "class ASRTask:\n    trainer = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugin, "TASK_MODULE", "stand_in_task")
    monkeypatch.setattr(
        plugin,
        "REGISTERED",
        {"decoder_choices": {"cif": ("types", "SimpleNamespace")}},
    )
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delitem(sys.modules, "stand_in_task", raising=False)
    yield "stand_in_task"
    sys.modules.pop("stand_in_task", None)


def test_registers_when_the_task_is_imported(stand_in_task):
    plugin.register_on_import()
    assert stand_in_task not in sys.modules
    task = importlib.import_module(stand_in_task)
    assert task.decoder_choices.classes == {"cif": types.SimpleNamespace}
    assert task.seen_while_running == {}


def test_looking_for_the_task_does_not_use_the_registration_up(stand_in_task):
    plugin.register_on_import()
    plugin.register_on_import()
    assert importlib.util.find_spec(stand_in_task) is not None
    task = importlib.import_module(stand_in_task)
    assert task.decoder_choices.classes == {"cif": types.SimpleNamespace}
    assert (
        importlib.reload(task).decoder_choices.classes == task.decoder_choices.classes
    )
    assert "cif" in task.decoder_choices.classes


def test_task_keeps_its_own_loader(stand_in_task):
    plugin.register_on_import()
    task = importlib.import_module(stand_in_task)
    assert type(task.__loader__) is type(asr.__loader__)
    assert task.__spec__.loader is task.__loader__


def test_task_that_is_there_already_is_extended_at_once(stand_in_task):
    task = importlib.import_module(stand_in_task)
    assert task.decoder_choices.classes == {}
    plugin.register_on_import()
    assert task.decoder_choices.classes == {"cif": types.SimpleNamespace}
