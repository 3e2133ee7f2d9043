"""The program espnet-cif: every command by its name, none imported without need."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_cif_hkd import __version__
from espnet_cif_hkd.cli import espnet_cif

ROOT = Path(__file__).parents[2]
PROBE = """
import sys
from espnet_cif_hkd.cli.espnet_cif import main
main(sys.argv[1:])
heavy = {"torch", "espnet2", "numpy", "soundfile", "yaml"} & set(sys.modules)
print(sorted(heavy), file=sys.stderr)
"""


def test_every_module_with_a_main_is_a_command() -> None:
    folder = Path(espnet_cif.__file__).parent
    with_main = {
        path.stem
        for path in folder.glob("*.py")
        if 'if __name__ == "__main__"' in path.read_text() and path.stem != "espnet_cif"
    }
    found = espnet_cif.commands()
    assert {name.replace("-", "_") for name in found} == with_main
    assert list(found)[:3] == ["transcribe", "align", "check"]
    assert all(len(name) + 2 <= 24 and summary for name, summary in found.items())


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    seconds = []
    for arguments in (["--help"], ["transcribe", "--help"], ["--help"]):
        started = os.times().children_user
        done = subprocess.run(
            [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True
        )
        seconds.append(os.times().children_user - started)
        assert done.returncode == 0, done.stderr
        assert done.stderr.strip() in ("[]", "")
        assert "espnet-cif" in done.stdout
    # Of the process, since others use the machine, too.
    assert min(seconds) < 0.3


def test_help_and_version(capsys) -> None:
    assert espnet_cif.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "  transcribe " in out and "  dump-speech-teacher " in out
    assert espnet_cif.main(["--version"]) == 0
    assert capsys.readouterr().out == f"espnet-cif {__version__}\n"
    assert espnet_cif.main([]) == 2
    assert "usage: espnet-cif COMMAND" in capsys.readouterr().err


# The options of pretrain are ESPnet's, and so is its parser.
@pytest.mark.parametrize("name", sorted({*espnet_cif.commands()} - {"pretrain"}))
def test_the_help_of_a_command_begins_with_its_name(name: str) -> None:
    module = importlib.import_module(f"espnet_cif_hkd.cli.{name.replace('-', '_')}")
    assert module.get_parser().format_usage().startswith(f"usage: espnet-cif {name} [")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("transcibe", "did you mean transcribe?"),
        ("dump_speech_teachers", "did you mean dump-speech-teacher?"),
        ("xyz", "see espnet-cif --help"),
        ("command", "see espnet-cif --help"),
    ],
)
def test_unknown_commands(capsys, name: str, hint: str) -> None:
    assert espnet_cif.main([name]) == 2
    err = capsys.readouterr().err
    assert err == f"error: no command {name!r}: {hint}\n"


@pytest.mark.parametrize("name", ["make-lexicon", "make_lexicon"])
def test_a_command_gets_its_arguments(name: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        espnet_cif.main([name, "--text"])
    assert stopped.value.code == 2
    assert "--text: expected at least one argument" in capsys.readouterr().err


def test_the_exit_code_is_that_of_the_command(tmp_path, capsys) -> None:
    assert espnet_cif.main(["learning-curve", "--log", str(tmp_path / "no")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_the_script_is_installed_by_its_name() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert '\nespnet-cif = "espnet_cif_hkd.cli.espnet_cif:main"\n' in text


def test_the_launcher_runs_commands_unless_a_script_has_the_name(tmp_path) -> None:
    def launch(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "espnet_cif_hkd", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = launch("make-lexicon", "--help")
    assert done.returncode == 0 and "--source" in done.stdout, done.stderr
    (tmp_path / "transcribe").write_text(
        "import json, sys; print(json.dumps(sys.argv))"
    )
    done = launch("transcribe", "x")
    assert json.loads(done.stdout) == ["transcribe", "x"]
    done = launch("transcripe")
    assert done.returncode == 2 and "can't open file" in done.stderr
