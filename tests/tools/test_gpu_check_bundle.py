"""The bundle of tools/gpu_check.sh: what goes in, and what is refused."""

import json
import re
import subprocess
import sys
import tarfile
from argparse import ArgumentParser
from pathlib import Path

import pytest
from gpu_check import bundle, install, run, wheels
from gpu_check.bundle import BundleError
from gpu_check.wheels import RELEASES, SOURCE_ONLY

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

HERE = ".".join(map(str, sys.version_info[:2]))


def options(add_options, *words):
    parser = ArgumentParser()
    add_options(parser)
    return parser.parse_args(list(map(str, words)))


@pytest.fixture
def repository(tmp_path):
    """A git repository with a file of each kind."""
    root = tmp_path / "repository"
    (root / "sub").mkdir(parents=True)
    for name in ("kept", "changed", "deleted", "sub/deep"):
        (root / name).write_text("old")
    (root / ".gitignore").write_text("ignored\n")
    (root / "link").symlink_to("kept")
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    (root / "changed").write_text("new")
    (root / "deleted").unlink()
    (root / "untracked").write_text("new")
    (root / "ignored").write_text("new")
    return root


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".gitignore"
    }


def test_the_working_tree_travels_without_what_git_ignores(repository, tmp_path):
    bundle.copy_repository(repository, tmp_path / "copy", head=False)
    expected = {"kept": "old", "link": "old", "changed": "new", "sub/deep": "old"}
    assert contents(tmp_path / "copy") == {**expected, "untracked": "new"}
    assert (tmp_path / "copy/link").is_symlink()
    assert bundle.commit(repository, head=False).endswith(" with local changes")


def test_the_last_commit_travels_on_request(repository, tmp_path):
    bundle.copy_repository(repository, tmp_path / "copy", head=True)
    names = ("kept", "link", "changed", "deleted", "sub/deep")
    assert contents(tmp_path / "copy") == dict.fromkeys(names, "old")
    assert len(bundle.commit(repository, head=True)) == 40


def test_the_page_lists_the_packages_that_the_machine_must_have():
    def needed(text):
        found = re.search("machine must have (.*?)(?:, with what|[(])", text, re.DOTALL)
        return set(re.findall(r"[\w-]+", found[1])) - {"and", "with"}

    listed = needed((ROOT / "docs/gpu_check.md").read_text())
    assert listed == needed(wheels.__doc__)
    assert {"torch", "PyYAML", "pytest-timeout"} <= listed


def test_a_bundle_that_is_too_large_is_refused_and_leaves_nothing(
    tmp_path, monkeypatch
):
    def make_miniature(root, top, archive):
        (top / "miniature").mkdir()

    monkeypatch.setattr(bundle, "make_miniature", make_miniature)
    target = tmp_path / "b.tar.gz"
    words = [target, "--without_wheels", "--without_fotaq", "--max_mib", "0.5"]
    with pytest.raises(BundleError, match=r"over 0\.5 \(miniature .*, repo .*\)"):
        bundle.main(options(bundle.add_options, *words), ROOT)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_holds_the_repository_and_speech(tmp_path):
    target = tmp_path / "b.tar.gz"
    words = [target, "--without_wheels", "--without_fotaq", "--python", HERE]
    assert bundle.main(options(bundle.add_options, *words), ROOT) == 0
    with tarfile.open(target) as tar:
        tar.extractall(tmp_path, filter="data")
    top = tmp_path / bundle.TOP
    assert json.loads((top / "manifest.json").read_text())["python"] == HERE
    for name in ("tools/gpu_check.sh", "tests/gpu/conftest.py", "pyproject.toml"):
        assert (top / "repo" / name).read_bytes() == (ROOT / name).read_bytes()
    assert (top / "repo/tools/gpu_check.sh").stat().st_mode & 0o100
    assert len(list(top.glob("miniature/LibriSpeech/*/*/*/*.flac"))) == 34
    assert (top / "teacher/config.json").is_file()


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("omegaconf>=2.3,<2.4", "omegaconf"),
        ("espnet_model_zoo", "espnet-model-zoo"),
        ("PyYAML == 6 ; python_version < '3.12'", "pyyaml"),
        ("ruamel.yaml[jinja2]", "ruamel-yaml"),
    ],
)
def test_names_are_compared_as_pip_does(requirement, name):
    assert bundle.canonical(requirement) == name


def test_what_the_machine_has_stays_behind(tmp_path, monkeypatch):
    (tmp_path / "freeze").write_text("Soundfile==0.13\nx @ file:///x.whl\nnltk==3\n")
    asked = []
    monkeypatch.setattr(bundle, "fetch", lambda names, *rest: asked.extend(names))
    monkeypatch.setattr(bundle, "build", lambda source, target: asked.append(source))
    words = ["--have", tmp_path / "freeze", "--add", "h5py"]
    args = options(bundle.add_options, *words)
    bundle.fetch_wheels(args, tmp_path / "repo", tmp_path / "wheels")
    names = {bundle.canonical(Path(name).name) for name in asked}
    assert {"librosa", "h5py", "espnet", "repo", "antlr4-python3-runtime"} <= names
    assert not {"soundfile", "nltk", "x"} & names


def test_every_package_of_the_lists_is_named_once():
    for names in RELEASES.values():
        found = [bundle.canonical(name) for name in names]
        assert len(set(found)) == len(found)
        assert "torch" not in found and "numpy" not in found
    every = {bundle.canonical(n) for names in RELEASES.values() for n in names}
    assert every >= SOURCE_ONLY


def test_a_package_that_is_there_is_not_replaced(tmp_path):
    assert install.present(tmp_path / "pytest-0.0.1-py3-none-any.whl")
    assert install.present(tmp_path / "pytest_timeout-0.0.1-py3-none-any.whl")
    assert not install.present(tmp_path / "no_such_package-1-py3-none-any.whl")


def started(tmp_path, *words):
    args = options(run.add_options, *words, "--out", tmp_path / "out")
    return run.main(args, tmp_path / "repo")


def test_a_run_without_a_bundle_says_how_to_make_one(tmp_path):
    with pytest.raises(BundleError, match=r"no such file; make it by .* bundle"):
        started(tmp_path)


def test_a_damaged_bundle_is_named(tmp_path):
    (tmp_path / "b.tar.gz").write_bytes(b"\x1f\x8b\x08 cut off")
    with pytest.raises(BundleError, match=r"b\.tar\.gz cannot be unpacked"):
        started(tmp_path, "--bundle", tmp_path / "b.tar.gz")


def test_a_bundle_for_another_python_is_refused(tmp_path):
    top = tmp_path / bundle.TOP
    top.mkdir()
    (top / "manifest.json").write_text('{"python": "3.7", "commit": "abc"}')
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        tar.add(top, bundle.TOP)
    with pytest.raises(BundleError, match=rf"for 3\.7: bundle --python {HERE}"):
        started(tmp_path, "--bundle", tmp_path / "b.tar.gz")
