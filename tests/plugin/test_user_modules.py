"""A user's own module is imported in launched and in spawned processes."""

import json
import os
import subprocess
import sys

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.user_modules import (
    USER_MODULE_VARIABLE,
    add_user_modules,
    import_user_modules,
    user_modules,
)
from espnet_cif_hkd.recipe.cli import main

MODULE = """
from espnet_cif_hkd.distill import AbsDistillCriterion, DistillOutput, criterion_choices

@criterion_choices.register("mine")
class Mine(AbsDistillCriterion):
    def forward(self, taps):
        return DistillOutput()
"""

# Takes the place of a training: a spawned child looks a name up by itself.
# test_launcher.py has ESPnet's own processes.
PROBE = """
import json, multiprocessing, sys

def found():
    from espnet_cif_hkd.distill import criterion_choices
    mine = criterion_choices.get_class("mine")
    return [mine.__module__, "espnet2.tasks.asr" in sys.modules]

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        child = pool.apply(found)
    print(json.dumps([found(), child, __import__("os").environ.get("{}")]))
""".replace("{}", USER_MODULE_VARIABLE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a user's package; its import leaves no trace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(USER_MODULE_VARIABLE, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/__init__.py").touch()
    (tmp_path / "my_package/mine.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import os\n\nos.no_such_name\n")
    (tmp_path / "wrong.py").write_text("def f(:\n")
    (tmp_path / "needy.py").write_text("import no_such_package\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/probe.py").write_text(PROBE)
    yield tmp_path
    for name in ("broken", "wrong", "needy", "my_package"):
        sys.modules.pop(name, None)


def launch(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "espnet_cif_hkd", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", ["option", "variable"])
def test_launched_and_spawned_processes_import_it(folder, way):
    """Also by a script, whose own folder replaces the working directory."""
    option = ["--user_module", "my_package.mine"] if way == "option" else []
    variable = {USER_MODULE_VARIABLE: "my_package.mine"} if way == "variable" else {}
    done = launch(*option, "elsewhere/probe.py", **variable)
    assert done.returncode == 0, done.stderr
    expected = ["my_package.mine", False]
    assert json.loads(done.stdout.splitlines()[-1]) == [
        expected,
        expected,
        "my_package.mine",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such", "no_such: there is no such module; it must be installed"),
        ("my_package.no_such", "my_package.no_such: there is no such module"),
        ("no_such.mine", "no_such.mine: ModuleNotFoundError: No module named 'no_such"),
        ("", "nothing to run"),
    ],
)
def test_a_module_that_is_not_there_is_refused_before_anything_runs(
    folder, name, message
):
    done = launch("--user_module", name)
    assert done.returncode in (1, 2) and message in done.stderr
    if name:
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        done = launch("-c", "print('ran')", **{USER_MODULE_VARIABLE: name})
        assert done.returncode == 1 and message in done.stderr and not done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "--user_module broken: AttributeError: .*broken.py, line 3"),
        ("wrong", "--user_module wrong: SyntaxError: .*wrong.py, line 1"),
        (
            "needy",
            "--user_module needy: ModuleNotFoundError: .*needy.py, line 1",
        ),
    ],
)
def test_a_module_that_fails_is_named(folder, name, message):
    add_user_modules(name)
    with pytest.raises(UserError, match=message) as caught:
        import_user_modules()
    assert "\n" not in str(caught.value)


def test_names_add_up(folder, monkeypatch):
    monkeypatch.setenv(USER_MODULE_VARIABLE, "broken, ")
    add_user_modules(" wrong,broken,")
    assert user_modules() == ["broken", "wrong"]
    add_user_modules()
    assert user_modules() == ["broken", "wrong"]


def test_a_name_in_yaml_imports_it(folder):
    """Where nothing else has: in dump_teacher, or for a model loaded in Python."""
    from espnet_cif_hkd.distill import criterion_choices

    add_user_modules("my_package.mine")
    try:
        assert criterion_choices.get_class("mine").__module__ == "my_package.mine"
    finally:
        criterion_choices.classes.pop("mine", None)


def test_the_engine_refuses_it_before_stage_1(folder, capfd):
    sets = ["--train_set", "a", "--valid_set", "b", "--test_sets", "c"]
    assert main([*sets, "--user_module", "no_such"]) == 1
    error = capfd.readouterr().err
    assert error.startswith("error: --user_module no_such") and error.count("\n") == 1
