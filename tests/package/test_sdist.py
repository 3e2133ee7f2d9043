"""What a source archive carries: all that its tests need, nothing that runs leave."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BUILD = "import setuptools.build_meta as b; print(b.build_sdist('dist'))"
# What setuptools adds.
METADATA = ("PKG-INFO", "setup.cfg", "espnet_cif_hkd.egg-info/")


def known_to_git() -> list[str]:
    """The files and links of the repository, those to be added included."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout: there is nothing to compare with")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        command, cwd=ROOT, capture_output=True, check=True, text=True
    )
    return [name for name in listed.stdout.split("\0") if name]


def in_git() -> list[str]:
    """Without links to folders."""
    return [name for name in known_to_git() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a checkout in which recipes have been run."""
    checkout = tmp_path_factory.mktemp("sdist") / "checkout"
    for name in in_git():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name, follow_symlinks=False)
    recipe = checkout / "egs2/fotaq/asr_hkd"
    for left in (
        *("data/train/text", "dump/raw/x", "exp/asr/1epoch.pth", "downloads/x.flac"),
        *("path.sh", "local/__pycache__/x.cpython-311.pyc"),
    ):
        (recipe / left).parent.mkdir(parents=True, exist_ok=True)
        (recipe / left).write_text("left by a run")
    espnet = checkout.with_name("espnet")
    for name in ("scripts", "pyscripts", "steps", "utils"):
        (espnet / name).mkdir(parents=True)
        (espnet / name / "tool.sh").touch()
        (recipe / name).symlink_to(espnet / name)
    built = subprocess.run(
        [sys.executable, "-c", BUILD],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return checkout / "dist" / built.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def unpacked(archive: Path) -> Path:
    target = archive.with_name("unpacked")
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    (folder,) = target.iterdir()
    return folder


def test_it_has_the_files_of_the_repository(unpacked: Path) -> None:
    found = {str(p.relative_to(unpacked)) for p in unpacked.rglob("*") if p.is_file()}
    assert {name for name in found if not name.startswith(METADATA)} == set(in_git())


def test_no_link_leads_to_a_folder() -> None:
    """Setuptools leaves such links out."""
    assert not [name for name in known_to_git() if (ROOT / name).is_dir()]


def test_scripts_can_be_run_and_links_lead_nowhere_else(unpacked: Path) -> None:
    for name in in_git():
        ours, theirs = ROOT / name, unpacked / name
        assert theirs.read_bytes() == ours.read_bytes(), name
        assert os.access(theirs, os.X_OK) == os.access(ours, os.X_OK), name


def test_its_tests_run(unpacked: Path, tmp_path: Path) -> None:
    names = ("ddp_cmd_sh", "recipe_scripts", "ablation_plan", "wheel")
    tests = [str(next(unpacked.rglob(f"test_{name}.py"))) for name in names]
    # The wheel is made and one of its recipes laid out; for all, see test_wheel.py.
    tests += ["-k", "not lays_a_recipe_out or hsk"]
    done = subprocess.run(
        # In a folder of its own, else pytest deletes those of earlier runs first.
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("--basetemp", str(tmp_path / "inner"), *tests),
        ],
        cwd=unpacked,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
