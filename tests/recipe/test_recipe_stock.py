"""asr.sh runs our engine, or a checkout's asr.sh with our checks between its stages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_recipe
from aishell_fixture import options_of_run_sh

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe import stock
from espnet_cif_hkd.recipe.cli import main

ROOT = Path(__file__).resolve().parents[2]
ASR_SH = ROOT / "egs2" / "TEMPLATE" / "asr_hkd" / "asr.sh"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What asr.sh uses of an ESPnet checkout; its asr.sh writes down its options."""
    template = tmp_path / "espnet" / "egs2" / "TEMPLATE" / "asr1"
    template.mkdir(parents=True)
    for name in ("scripts", "pyscripts", "steps", "utils"):
        (template / name).mkdir()
    for name in ("cmd.sh", "db.sh"):
        (template / name).write_text("")
    (template / "path.sh").write_text(
        "MAIN_ROOT=$PWD/../../..\nexport MAIN_ROOT\n. local/path.sh\n"
    )
    (template / "asr.sh").write_text(
        '. ./path.sh\necho "${MAIN_ROOT} $*" >> called\n[ ! -e fail ]\n'
    )
    return tmp_path / "espnet"


def calls() -> list[list[str]]:
    """The options of each call, without the checkout's place in front."""
    lines = Path("called").read_text().splitlines()
    return [line.split()[1:] for line in lines]


def asr_sh(checkout: Path | None, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    environment.pop("ESPNET_ROOT", None)
    if checkout is not None:
        environment["ESPNET_ROOT"] = str(checkout)
    command = ["bash", str(ASR_SH), *words]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False
    )


def test_without_a_checkout_the_engine_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = asr_sh(None, "--asr_confg", "x")
    assert result.returncode == 1
    assert result.stderr == (
        "error: unknown option --asr_confg: did you mean --asr_config?\n"
    )


@pytest.mark.parametrize(
    ("line", "warned"),
    [("cmd_backend='local'", False), ("cmd_backend='slurm'  # ours", True)],
)
def test_the_engine_says_that_it_submits_no_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, warned: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cmd.sh").write_text(f"# cmd_backend='local'\n{line}\n")
    result = asr_sh(None, "--asr_confg", "x")
    assert result.stderr.startswith("warning: cmd_backend in cmd.sh") == warned
    assert "--asr_confg" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_with_a_checkout_its_asr_sh_runs(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    monkeypatch.chdir(recipe)
    Path("db.sh").write_text("# the recipe's own\n")
    # As in the recipes of this repository.
    shared = tmp_path / "TEMPLATE/asr_hkd/cmd.sh"
    shared.parent.mkdir(parents=True)
    shared.write_text("# of all recipes\n")
    Path("cmd.sh").symlink_to("../TEMPLATE/asr_hkd/cmd.sh")
    words = tiny_recipe.options(stop_stage="5")
    result = asr_sh(checkout, *words)
    assert result.returncode == 0, result.stderr
    python = [sys.executable, "-m", "espnet_cif_hkd"]
    assert calls() == [["--python", *python, *words]]
    assert Path("called").read_text().startswith(f"{checkout} ")
    assert Path("utils").resolve() == checkout / "egs2/TEMPLATE/asr1/utils"
    assert Path("db.sh").read_text() == "# the recipe's own\n"
    assert Path("cmd.sh").samefile(shared)
    other = tmp_path / "other"
    shutil.copytree(checkout, other)
    assert asr_sh(other, *words).returncode == 0
    assert Path("utils").resolve() == other / "egs2/TEMPLATE/asr1/utils"
    assert Path("called").read_text().splitlines()[1].startswith(f"{other} ")


def test_a_folder_that_is_no_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = asr_sh(tmp_path)
    assert result.returncode == 1
    assert "is not an ESPnet checkout" in result.stderr
    assert "no such folder" in asr_sh(tmp_path / "none").stderr


def test_asr_sh_does_not_know_hosts(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = checkout / "egs2/TEMPLATE/asr1/asr.sh"
    words = tiny_recipe.options(nbpe="40", hosts="a,b")
    with pytest.raises(
        UserError, match=r"--hosts needs this package's engine.*cmd\.sh"
    ):
        stock.run_stock(script, "py", words)
    assert not Path("called").exists()


def test_asr_sh_never_uploads_what_must_be_private(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = checkout / "egs2/TEMPLATE/asr1/asr.sh"
    words = tiny_recipe.options(nbpe="40", hf_private="true", hf_repo="user/name")
    upload = [*words, "--stage", "15", "--skip_upload_hf", "false"]
    with pytest.raises(UserError, match="--hf_private needs this package's engine"):
        stock.run_stock(script, "py", upload)
    assert not Path("called").exists()
    # Options that only asr.sh knows do not hide it.
    with pytest.raises(UserError, match="--hf_private needs this package's engine"):
        stock.run_stock(script, "py", [*upload, "--use_ngram", "true"])
    stock.run_stock(script, "py", [*words, "--stage", "12", "--stop_stage", "12"])
    assert "hf_private" not in Path("called").read_text()


def test_our_checks_run_between_stages_9_and_10(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    monkeypatch.chdir(recipe)
    Path("path.sh").write_text("")
    seen: list[int] = []

    def check(run: object) -> None:
        seen.append(len(calls()) if Path("called").exists() else 0)

    monkeypatch.setattr(stock, "check", check)
    script = checkout / "egs2/TEMPLATE/asr1/asr.sh"
    words = tiny_recipe.options(nbpe="40")

    def run(*more: str) -> list[list[str]]:
        Path("called").unlink(missing_ok=True)
        stock.run_stock(script, "py", [*words, *more])
        # Without MAIN_ROOT the first word is the option itself.
        lines = Path("called").read_text().splitlines()
        return [line.split()[len(words) + 4 :] for line in lines]

    assert run() == [["--stop_stage", "9"], ["--stage", "10"]]
    assert seen == [1]
    assert run("--reuse", "true", "--drop_too_long", "true") == [
        ["--stop_stage", "9"],
        ["--stage", "10"],
    ]
    assert run("--stage", "11") == [["--stage", "11"]]
    assert run("--stage", "12") == [["--stage", "12"]]
    speed = ["--speed_perturb_factors", "0.9 1.0"]
    assert " ".join(run(*speed)[0]) == (
        "--speed_perturb_factors 0.9 1.0 --lm_train_text data/train/text "
        "--bpe_train_text data/train/text --stop_stage 9"
    )
    given = ["--lm_train_text", "a", "--bpe_train_text", "b"]
    assert run(*speed, *given, "--stage", "12")[0][3:] == [*given, "--stage", "12"]
    # Only asr.sh understands this, so the checks are left out.
    assert run("--use_ngram", "true") == [["--use_ngram", "true"]]
    assert seen == [1, 1, 0, 1]

    Path("fail").touch()
    with pytest.raises(UserError, match=r"asr\.sh failed with exit status 1"):
        run()
    assert len(seen) == 4


def test_another_python_would_lose_the_registration(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = asr_sh(checkout, "--python", "python3.11", "--stage", "4")
    assert result.returncode == 1
    assert result.stderr.startswith("error: --python") and "PYTHON=" in result.stderr
    assert not Path("called").exists()


@pytest.mark.parametrize("corpus", ["fotaq", "hsk", "aishell", "librispeech"])
def test_texts_are_named_that_speed_perturbation_leaves(
    tmp_path: Path, corpus: str
) -> None:
    recipe = tmp_path / "recipe"
    assert main(["init", corpus, str(recipe)]) == 0
    # Without these asr.sh takes dump/raw/org/TRAIN, where stage 3 then writes TRAIN_sp.
    words = options_of_run_sh(recipe)
    train_set = words[words.index("--train_set") + 1]
    texts = words[words.index("--lm_train_text") + 1].split()
    if "bpe" in words:
        texts.append(words[words.index("--bpe_train_text") + 1])
    assert set(texts) == {f"data/{train_set}/text"}
