"""The engine with a transducer: its checks, and all stages."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_recipe
import torch
import yaml
from finished_recipe import BATCHES, run
from transducer_teacher import save_teacher

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe import options, paths, plan, stock
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.hooks import teacher_inputs


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    tiny_recipe.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepared(changes, stages=(10, 11), **changed):
    config = yaml.safe_load(tiny_recipe.TRANSDUCER_CONFIG)
    config |= changes
    config = {key: value for key, value in config.items() if value is not None}
    Path("conf/own.yaml").write_text(yaml.safe_dump(config))
    words = tiny_recipe.options(lang="en", asr_config="conf/own.yaml", **changed)
    parsed = options.parse(words)
    return Run(parsed, paths.derive(parsed), words, list(stages))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "espnet"},
            "'model: espnet' needs warprnnt_pytorch.* set 'model: tr",
        ),
        ({"model": "hybrid"}, "'model: hybrid' needs warprnnt_pytorch"),
        ({"decoder": "transformer"}, "transducer works only with transducer, set both"),
        ({"decoder": "cif"}, "cif works only with cif, set both"),
        ({"decoder": "cif_nar"}, "'decoder: cif_nar': cif works only with cif"),
        ({"joint_net_conf": None}, "needs a joint network: set 'joint_net_conf:"),
        (
            {"model_conf": {"ctc_weight": 1.0}},
            "ctc_weight 1.0: 'model: transducer' adds",
        ),
    ],
)
def test_refused_before_stage_1(recipe, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        plan.Checks(prepared(changes)).config()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["transducer", "espnet"])
def test_asr_sh_may_have_both(recipe, model):
    run = prepared({"model": model})
    assert stock.engine_run(run.arguments).stock
    run.stock = True
    plan.Checks(run).config()


def test_batches_are_refused(recipe):
    run = prepared({}, stages=(10, 11, 12), batch_size="2")
    with pytest.raises(UserError, match="decodes a transducer one utterance at a time"):
        plan.Checks(run).config()
    if BATCHES:
        run = prepared(
            {"model": "hybrid", "decoder": "transformer", "joint_net_conf": None},
            stages=(10, 11, 12),
            batch_size="2",
        )
        plan.Checks(run).config()


@pytest.mark.slow
def test_all_stages(recipe):
    """The best model is chosen by acc, as of every system; a short clip is empty."""
    Path("conf/own.yaml").write_text(tiny_recipe.TRANSDUCER_CONFIG)
    Path("conf/decode.yaml").write_text(
        "beam_size: 2\ntransducer_conf: {search_type: maes}\n"
    )
    soundfile.write("sound/test/spk0-test0.wav", np.full(100, 0.1), tiny_recipe.RATE)
    assert run(asr_config="conf/own.yaml", skip_packing="false") == 0
    folder = Path("exp/asr_own_raw_en_char")
    decoded = folder / "decode_asr_model_valid.acc.ave/test"
    hypotheses = dict(
        (line.rstrip("\n") + " ").split(" ", 1) for line in (decoded / "text").open()
    )
    assert sorted(hypotheses) == ["spk0-test0", "spk0-test2", "spk1-test1"]
    assert hypotheses["spk0-test0"].strip() == ""
    assert "valid.acc.ave" in (folder / "RESULTS.md").read_text()
    log = (folder / "train.log").read_text()
    assert "loss_transducer=" in log and "acc=" in log and "cer=" in log
    assert list(folder.glob("*.zip"))


def test_a_training_depends_on_the_teachers_model_only(recipe):
    """Not on what is decoded or trained on in the teacher's folder."""
    folder, _ = save_teacher(recipe / "exp/teacher")
    path = {"type": "transducer_path", "teacher": folder}
    both = {"path": path, "plm": {"type": "hkd", "teacher": str(recipe / "conf")}}
    args = argparse.Namespace(frontend="default", model_conf={"criteria": both})
    (recipe / "exp/teacher/train.log").write_text("more epochs")
    names = ["valid.acc.ave.pth", "config.yaml"]
    expected = [Path(folder) / name for name in names] + [recipe / "conf"]
    assert teacher_inputs(prepared({}), args) == expected
    path["teacher"] = "/gone"
    assert teacher_inputs(prepared({}), args) == expected[2:]


@pytest.mark.slow
def test_a_trained_transducer_teaches_another(recipe):
    """The checkpoint of the student decodes where the teacher is not."""
    Path("conf/own.yaml").write_text(tiny_recipe.TRANSDUCER_CONFIG)
    teacher = Path("exp/asr_own_raw_en_char")
    student = yaml.safe_load(tiny_recipe.TRANSDUCER_CONFIG)
    path = {"type": "transducer_path", "teacher": str(teacher), "ramp": 2}
    student["model_conf"]["criteria"] = {"path": path}
    Path("conf/student.yaml").write_text(yaml.safe_dump(student))
    Path("conf/decode.yaml").write_text("beam_size: 1\n")
    with pytest.raises(
        UserError, match=r"train the teacher first, .* criteria\.path\.teacher"
    ):
        plan.Checks(prepared(student)).config()
    Path("conf/own.yaml").write_text(tiny_recipe.TRANSDUCER_CONFIG)
    assert run(asr_config="conf/own.yaml", stop_stage="11") == 0
    assert run(asr_config="conf/student.yaml", stage="10", stop_stage="11") == 0
    folder = Path("exp/asr_student_raw_en_char")
    log = (folder / "train.log").read_text()
    assert "path.loss_path=" in log and "path.kl_path=" in log
    state = torch.load(folder / "valid.acc.ave.pth", weights_only=True)
    of_teacher = torch.load(teacher / "valid.acc.ave.pth", weights_only=True)
    assert set(state) - {"schedule.updates"} == set(of_teacher)
    teacher.rename("elsewhere")
    assert run(asr_config="conf/student.yaml", stage="12", stop_stage="13") == 0
    decoded = folder / "decode_asr_model_valid.acc.ave/test"
    assert len((decoded / "text").read_text().splitlines()) == 3
