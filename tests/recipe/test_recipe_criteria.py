"""The engine's checks treat every registered criterion alike."""

from pathlib import Path
from typing import ClassVar

import pytest
import tiny_recipe
import yaml
from recorder import Recorder
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.distill import criterion_choices
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe import options, paths, plan
from espnet_cif_hkd.recipe.context import Run

HYBRID = tiny_recipe.ASR_CONFIG + "model: hybrid\n"


class Checked(Recorder):
    """Records its checks, and fills a store of its own."""

    checks: ClassVar[list[tuple[str, list[str] | None, str]]] = []

    def __init__(self, student, wish, folder=None):
        super().__init__(student)

    @classmethod
    def check(cls, conf, context):
        remarks = super().check(conf, context)
        if conf["wish"] == "bad":
            raise UserError("criterion_conf.wish is bad")
        cls.checks.append((context.model, context.token_list, context.token_type))
        return [*remarks, f"wish {conf['wish']}"]

    @classmethod
    def store(cls, conf):
        return conf.get("folder")

    @classmethod
    def fill(cls, conf, folder, sentences):
        Path(folder).write_text(str(sorted(map(len, sentences.sequences()))))


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    tiny_recipe.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(criterion_choices.classes, "checked", Checked)
    monkeypatch.setattr(Checked, "checks", [])
    return tmp_path


def prepared(text, model_conf=None, **changed):
    """A run of stages 10 and 11 with this configuration."""
    config = yaml.safe_load(text)
    config["model_conf"].update(model_conf or {})
    Path("conf/own.yaml").write_text(yaml.safe_dump(config))
    words = tiny_recipe.options(lang="en", asr_config="conf/own.yaml", **changed)
    parsed = options.parse(words)
    return Run(parsed, paths.derive(parsed), words, [10, 11])


def checked(*arguments, **changed):
    checks = plan.Checks(prepared(*arguments, **changed))
    checks.config()
    return checks


@pytest.mark.parametrize(
    ("text", "model_conf", "message"),
    [
        (HYBRID, {"criterion": "checked"}, "missing a required argument: 'wish'"),
        (
            HYBRID,
            {"criteria": {"a": {"type": "checked", "wish": "bad"}}},
            "^criteria.a.wish is bad",
        ),
        (
            HYBRID,
            {"criterion": "recorder", "criterion_conf": {"want": 1}},
            "'want'; Recorder has the options wants",
        ),
        (HYBRID, {"criterion": "nobodys"}, "criterion must be one of hkd"),
        (
            tiny_recipe.ASR_CONFIG,
            {"criterion": "checked", "criterion_conf": {"wish": 1}},
            "'model: espnet' cannot have a criterion checked: set 'model: hybrid'",
        ),
        (
            tiny_recipe.ASR_CONFIG.replace(
                "decoder: transformer", "model: hybrid\ndecoder: cif"
            ),
            {},
            "'model: hybrid' with 'decoder: cif': cif works only with cif",
        ),
        (
            tiny_recipe.CIF_CONFIG,
            {"criterion": "hkd", "criteria": {"a": {"type": "hkd"}}},
            "has criterion and criteria",
        ),
    ],
)
def test_refused_before_stage_1(recipe, text, model_conf, message):
    with pytest.raises(UserError, match=message) as caught:
        checked(text, model_conf)
    assert "\n" not in str(caught.value)


def test_acd_with_a_model_that_fires_nothing(recipe):
    teacher = build_tiny_bert(recipe / "bert")
    conf = {"teacher": teacher, "teacher_dim": HIDDEN}
    with pytest.raises(UserError, match="criterion hkd needs fired vectors; model: hy"):
        checked(HYBRID, {"criterion": "hkd", "criterion_conf": conf})
    checked(HYBRID, {"criterion": "hkd", "criterion_conf": {**conf, "acoustic": None}})


def test_a_class_of_the_users_is_asked_and_fills_its_store(recipe, capfd):
    """In each criterion of several; what it says reaches the log."""
    criteria = {
        "a": {"type": "checked", "wish": "well", "folder": "filled"},
        "b": {"type": "checked", "wish": "else"},
    }
    checks = checked(HYBRID, {"criteria": criteria})
    assert Checked.checks == [("hybrid", None, "char")] * 2
    printed = capfd.readouterr().out
    assert "preflight: wish well" in printed and "preflight: wish else" in printed
    run = checks.run
    for part in ("train", "valid"):
        folder = run.paths.data_feats / part
        folder.mkdir(parents=True)
        (folder / "text").write_text(Path(f"source/{part}/text").read_text())
    run.paths.token_list.parent.mkdir(parents=True)
    tokens = ["<blank>", "<unk>", "a", "<space>", "b", "<sos/eos>"]
    run.paths.token_list.write_text("\n".join(tokens) + "\n")
    plan.store.dump_teacher(run, checks.args)
    lengths = [len(tiny_recipe.WORDS[n % 8]) for n in (*range(8), *range(4))]
    assert Path("filled").read_text() == str(sorted(lengths))
