"""Without a package that is needed, one line says which, and how pip installs it."""

import ast
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from our_metadata import recorded
from without_packages import packages_with, run_json

import espnet_cif_hkd
from espnet_cif_hkd import UserError
from espnet_cif_hkd.io.missing import how_to_install, missing_named

__all__ = ["recorded"]

PACKAGE = Path(espnet_cif_hkd.__file__).parent
# Not needed, but used where they are installed.
OPTIONAL = {"deepspeed", "torchaudio"}
# What brings them: fastapi, and huggingface_hub.
BROUGHT = {"pydantic", "starlette", "tqdm"}
BASE = ("torch", "numpy", "filelock", "PyYAML", "soundfile")
LAUNCHER, RECIPE, CLI = "plugin.launcher", "recipe.cli", "cli.espnet_cif"
ESPNET = ("espnet2", "[espnet]")
# Module with main, its arguments, what is missing and the extra that brings it.
CALLS: list[tuple[str, list[str], str, str]] = [
    (LAUNCHER, ["-m", "espnet2.bin.asr_train", "--config", "x.yaml"], *ESPNET),
    (LAUNCHER, ["-c", "import espnet2"], *ESPNET),
    (LAUNCHER, ["-c", "from espnet_cif_hkd import register; register()"], *ESPNET),
    (LAUNCHER, ["-c", "from espnet_cif_hkd import Speech2Text"], *ESPNET),
    (LAUNCHER, ["-c", "import transformers"], "transformers", "[teacher]"),
    (CLI, ["transcribe", "a.wav", "--model", "exp"], *ESPNET),
    (CLI, ["align", "a.wav", "--model", "exp", "--text", "x"], *ESPNET),
    (CLI, ["check"], *ESPNET),
    (CLI, ["pretrain", "--print_config"], *ESPNET),
    (CLI, ["serve", "--model", "exp"], "fastapi", "[serve]"),
    (CLI, ["export", "--model", "exp", "--out", "out"], *ESPNET),
]
PROBE = """
import contextlib, importlib, io, json, sys
from pathlib import Path
Path("exp").mkdir()
Path("exp/config.yaml").write_text("{}")
Path("exp/1epoch.pth").touch()
import numpy, soundfile
soundfile.write("a.wav", numpy.zeros(800), 8000)
def call(module, words):
    main = importlib.import_module(f"espnet_cif_hkd.{module}").main
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            code = main(words)
        except SystemExit as error:
            code = error.code
        except Exception as error:
            code = repr(error)
    return code, said.getvalue()
from espnet_cif_hkd.cli.espnet_cif import commands
helps = {name: call("cli.espnet_cif", [name, "--help"]) for name in commands()}
import espnet_cif_hkd
def plain(what):
    try:
        what()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
plains = [plain(lambda: espnet_cif_hkd.Speech2Text), plain(espnet_cif_hkd.register)]
print(json.dumps([helps, plains, [call(*one) for one in json.load(sys.stdin)]]))
"""


def third_party() -> dict[str, str]:
    """Packages that modules of this package import -> one of these modules."""
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                found.setdefault(name.partition(".")[0], path.name)
    ours = {"espnet_cif_hkd", *sys.stdlib_module_names}
    return {name: path for name, path in found.items() if name not in ours}


@pytest.mark.slow
def test_every_package_that_we_import_has_a_command(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(recorded))
    found = third_party()
    assert {"espnet2", "transformers", "onnx", "fastapi", "torch"} <= set(found)

    unnamed = {name for name in found if how_to_install(name) is None}

    assert unnamed - OPTIONAL - BROUGHT == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("yaml", "PyYAML"),
        ("torch.nn", "torch"),
        ("huggingface_hub", "'espnet-cif-hkd[share]'"),
        ("python_multipart", "'espnet-cif-hkd[serve]'"),
        ("matplotlib.figure", "'espnet-cif-hkd[recipe]'"),
        ("hypothesis", "'espnet-cif-hkd[dev]'"),
    ],
)
def test_the_command_for_a_module(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, module: str, command: str
) -> None:
    monkeypatch.syspath_prepend(str(recorded))
    assert how_to_install(module) == f"python3 -m pip install {command}"


@pytest.mark.parametrize(("python", "more"), [((3, 12), False), ((3, 11), True)])
def test_espnet_202511_takes_a_second_command(
    python: tuple[int, int], more: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (*python, 0))
    command = how_to_install("espnet2.bin.asr_train")
    assert command and "'espnet-cif-hkd[espnet]'" in command
    assert ("--no-deps espnet==202511" in command) is more
    # ESPnet imports it, and without its requirements pip does not install it.
    assert command.endswith("torchaudio") is more
    assert how_to_install("torchaudio") == command


@pytest.mark.parametrize("name", ["espnet_cif_hkd.no_such", "own_module", "yaml.no"])
def test_other_modules_keep_their_error(name: str) -> None:
    with pytest.raises(ModuleNotFoundError), missing_named():
        __import__(name)


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ModuleNotFoundError("No module named 'espnet2'", name="espnet2.bin")
    monkeypatch.delitem(sys.modules, "espnet2", raising=False)
    with (
        pytest.raises(
            UserError, match=r"^espnet2 is not installed; run: python3 -m pip"
        ),
        missing_named(),
    ):
        raise error


def test_a_torchaudio_of_another_torch_is_one_line() -> None:
    path = "/x/torchaudio/lib/_torchaudio.abi3.so"
    with (
        pytest.raises(UserError, match=r"^torchaudio does not load .*abi3\.so$"),
        missing_named(),
    ):
        raise OSError(f"Could not load this library: {path}")
    for other in (FileNotFoundError(2, "No such file", path), OSError("disk full")):
        with pytest.raises(OSError) as caught, missing_named():
            raise other
        assert caught.value is other


@pytest.fixture(scope="module")
def bare(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What commands say where only the requirements of this package are installed."""
    home = tmp_path_factory.mktemp("bare")
    packages = packages_with(home / "packages", BASE)
    for record in recorded.iterdir():
        (packages / record.name).symlink_to(record)
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "HOME": str(home)}
    given = [call[:2] for call in CALLS]
    return run_json(packages, PROBE, home, environment, given)


@pytest.mark.slow
def test_every_command_shows_its_options(bare: Any) -> None:
    helps = bare[0]
    assert len(helps) > 10
    bad = {name: said for name, (code, said) in helps.items() if code != 0}
    # Its options are those of ESPnet's training.
    assert "[espnet]'" in bad.pop("pretrain")
    assert bad == {}


@pytest.mark.slow
def test_a_program_that_imports_us_is_answered(bare: Any) -> None:
    kinds = ("ModuleNotFoundError", "UserError")
    for kind, said in zip(kinds, bare[1], strict=True):
        assert said.startswith(f"{kind}: ") and "'espnet-cif-hkd[espnet]'" in said


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CALLS)))
def test_a_command_names_what_is_missing(bare: Any, number: int) -> None:
    _, words, missing, extra = CALLS[number]
    code, said = bare[2][number]
    assert code == 1, (words, code, said)
    if words == ["check"]:  # a report of several lines
        (line,) = [one for one in said.splitlines() if "ESPnet" in one]
    else:
        (line,) = said.splitlines()
        assert line.startswith("error: "), said
        assert missing in line
    assert "pip install" in line and f"espnet-cif-hkd{extra}'" in line, said
