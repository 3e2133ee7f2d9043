"""Bad input of ``text_only``: one line each, before hours are spent."""

import argparse

import pytest
import torch
from espnet_parts import HYBRID
from host_reads import Copies, Reads
from recipe_data import make_run
from tiny_model import TOKENS, tiny_batch, tiny_model
from unpaired import criteria, text_file

from espnet_cif_hkd.distill import CheckContext, TextOnlyCriterion
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.preflight import check_arguments
from espnet_cif_hkd.recipe.hooks import teacher_inputs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": None}, r"\.text is None; name a Kaldi text file"),
        ({"source": "speech"}, r"source is 'speech'; use one of embedding, teacher"),
        ({"mask": 1.2}, r"mask is 1\.2; give a number from 0 to 1"),
        ({"mask": True}, r"mask is True; give a number from 0 to 1"),
        ({"noise": -1}, r"noise is -1; give a number from 0 to 100"),
        ({"noise": float("nan")}, r"noise is nan; give a number"),
        ({"weight": 0}, r"weight is 0; give a number above 0"),
        ({"weight": "1"}, r"weight is '1'; give a number above 0"),
        ({"batch_size": 0}, r"batch_size is 0; give an integer from 1"),
        ({"max_length": 2.5}, r"max_length is 2\.5; give an integer from 1"),
        ({"start": -1}, r"start is -1; give an integer from 0"),
        ({"seed": None}, r"seed is None; give an integer from 0"),
        ({"ramp": -1}, r"ramp is -1"),
        ({"source": "teacher"}, r"teacher"),
        ({"teacher": "bert"}, r"teacher is for source: teacher; set it, or remove"),
        ({"maks": 0.5}, r"'maks'; TextOnlyCriterion has the options text, source"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    conf = criteria(tmp_path, **options)
    with pytest.raises(UserError, match=rf"criteria\.text.*{message}") as caught:
        tiny_model(model_conf=conf)
    assert "\n" not in str(caught.value)


def test_a_bound_on_no_gradient(tmp_path):
    model = tiny_model(model_conf=criteria(tmp_path, max_share=0.1)).train()
    with pytest.raises(UserError, match=r"criteria\.text\.max_share: no gradient"):
        model(**tiny_batch())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (HYBRID, "model: hybrid has none"),
        ({"decoder": "cif_nar", "decoder_conf": {}}, "criterion text needs a decoder"),
    ],
    ids=["hybrid", "cif_nar"],
)
def test_models_without_such_a_decoder(tmp_path, changes, message):
    changes = dict(changes)
    conf = {**changes.pop("model_conf", {}), **criteria(tmp_path)}
    with pytest.raises(UserError, match=message):
        tiny_model(**changes, model_conf=conf)


def test_checks_of_a_recipe(tmp_path):
    """Before stage 1 the file may be missing: a stage may write it."""
    conf = criteria(tmp_path)["criteria"]["text"]
    conf.pop("type")
    absent = {**conf, "text": str(tmp_path / "absent")}
    context = CheckContext("cif", TOKENS, "char")
    (remark,) = TextOnlyCriterion.check(conf, context)
    assert remark == "text without speech: 7 sentences, 39 tokens"
    assert TextOnlyCriterion.check(absent, CheckContext("cif")) == []
    with pytest.raises(UserError, match="absent is missing"):
        TextOnlyCriterion.check(absent, context)
    for training in ({"decoder": "cif_nar"}, {"decoder": "transformer"}):
        with pytest.raises(UserError, match="text_only needs 'decoder: cif'"):
            TextOnlyCriterion.check(absent, CheckContext("cif", training=training))
    with pytest.raises(UserError, match=r"criterion_conf\.mask is 2"):
        TextOnlyCriterion.check({**absent, "mask": 2}, CheckContext("cif"))


def test_the_launcher_checks_the_file(tmp_path):
    """ESPnet's own command line, without a recipe."""
    args = argparse.Namespace(
        config=None,
        model_conf=criteria(tmp_path),
        decoder="cif",
        joint_net_conf=None,
        init_param=[],
    )
    check_arguments(args)
    args.model_conf["criteria"]["text"]["text"] = "absent"
    with pytest.raises(UserError, match=r"criteria\.text\.text absent: this file does"):
        check_arguments(args)


def test_another_text_is_another_training(tmp_path):
    path = text_file(tmp_path)
    conf = criteria(tmp_path, bpemodel="bpe.model")
    args = argparse.Namespace(model_conf=conf, frontend="default", frontend_conf={})
    found = [str(one) for one in teacher_inputs(make_run(), args)]
    assert found == [path, "bpe.model"]


def test_a_step_waits_once_more_for_the_device(tmp_path):
    model = tiny_model(model_conf=criteria(tmp_path)).train()
    batch = tiny_batch(4)
    model(**batch)  # reads the file
    reading = Reads()
    with Copies(reading.found), reading:
        model(**batch)[0].sum().backward()
    ours = {name: n for name, n in reading.found.items() if "text" in name}
    assert ours == {"distill.text_only": 1}
    assert torch.is_tensor(batch["text"])
