"""Stage 15 against a hub on the loopback interface, through the real client."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_recipe
import yaml
from finished_recipe import finished
from loopback_hub import Fault, Hub
from packed_model import ARCHIVE, OPTIONS, packed

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe import hub as hub_calls
from espnet_cif_hkd.recipe.packed import read_packed

__all__ = ["finished", "packed"]

pytest.importorskip("huggingface_hub", reason="stage 15 needs huggingface_hub")
REPO = "user/tones"


@pytest.fixture
def recipe(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the packed recipe."""
    folder = tmp_path / "egs2" / "tones" / "asr_hkd"
    shutil.copytree(packed, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


def stage_15(
    hub: Hub, home: Path, repo: str = REPO, token: str | None = "hf_loopback"
) -> "subprocess.CompletedProcess[str]":
    words = tiny_recipe.options(
        lang="en", stage="15", skip_upload_hf="false", hf_repo=repo, **OPTIONS
    )
    return hub.recipe(home, *words, token=token)


def error_of(result: "subprocess.CompletedProcess[str]") -> str:
    assert result.returncode == 1, result.stdout + result.stderr
    lines = [s for s in result.stderr.splitlines() if s.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


def stored_files(hub: Hub) -> list[str]:
    return [line for line in hub.requests if line.startswith("PUT /storage/")]


def test_a_new_repository_and_then_the_same_again(
    recipe: Path, hub: Hub, tmp_path: Path
) -> None:
    first = stage_15(hub, tmp_path)
    assert first.returncode == 0, first.stderr
    assert f"made the repository {REPO}" in first.stdout
    assert f"the model is at {hub.url}/{REPO}" in first.stdout
    repository = hub.repositories[REPO]
    members = read_packed(ARCHIVE).members
    assert set(repository.files) == {*members, "README.md"}
    for name, file in repository.files.items():
        assert file.content == (recipe / f"exp/hf_user_tones/{name}").read_bytes()
    assert any(file.large for file in repository.files.values())
    assert len(repository.commits) == 2

    sent = len(stored_files(hub))
    again = stage_15(hub, tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"{REPO} exists and gets a new commit" in again.stdout
    assert f"{REPO} has these files already" in again.stdout
    assert len(repository.commits) == 2
    assert len(stored_files(hub)) == sent


def test_the_model_card_that_is_uploaded(
    recipe: Path, hub: Hub, tmp_path: Path
) -> None:
    (recipe / "conf/model_card.yaml").write_text(
        "license: cc-by-4.0\nlanguage: en\ncorpus: Tones (synthetic)\n"
    )
    result = stage_15(hub, tmp_path)
    assert result.returncode == 0, result.stderr
    card = hub.repositories[REPO].files["README.md"].content.decode()
    metadata = yaml.safe_load(re.match(r"---\n(.*?)---\n", card, re.DOTALL)[1])
    assert metadata["license"] == "cc-by-4.0"
    assert "states no licence" not in result.stdout
    # Valid by the client's own reading, too.
    code = (
        "import sys; from huggingface_hub import ModelCard; "
        "data = ModelCard(open(sys.argv[1]).read(), ignore_metadata_errors=False).data;"
        "print(data.license, data.library_name, data.pipeline_tag)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(recipe / "exp/hf_user_tones/README.md")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == [
        *("cc-by-4.0", "espnet", "automatic-speech-recognition")
    ]


def test_a_model_card_that_the_hub_refuses(
    recipe: Path, hub: Hub, tmp_path: Path
) -> None:
    (recipe / "conf/model_card.yaml").write_text("license: [1, 2]\n")
    line = error_of(stage_15(hub, tmp_path))
    assert '"license" must be a string' in line
    assert "correct conf/model_card.yaml" in line
    assert not hub.storage


def test_an_existing_repository_keeps_what_it_has(
    recipe: Path, hub: Hub, tmp_path: Path
) -> None:
    assert stage_15(hub, tmp_path).returncode == 0
    repository = hub.repositories[REPO]
    kept = repository.files["meta.yaml"]
    repository.commits.append({**repository.files, "notes.txt": kept})
    (recipe / "conf/model_card.yaml").write_text("license: mit\n")
    sent = len(stored_files(hub))
    assert stage_15(hub, tmp_path).returncode == 0
    assert repository.files["notes.txt"] is kept
    assert b"license: mit" in repository.files["README.md"].content
    # Only the card has changed, and only the card was sent.
    assert len(stored_files(hub)) == sent


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("POST .*/commit/", 503), r"failed for the moment \(503\)"),
        (Fault("POST .*/commit/", None), "the upload to user/tones broke off"),
    ],
)
def test_a_failure_half_way_and_a_second_run(
    recipe: Path, hub: Hub, tmp_path: Path, fault: Fault, message: str
) -> None:
    hub.faults.append(fault)
    line = error_of(stage_15(hub, tmp_path))
    assert re.search(message, line)
    assert "run the same command again" in line
    # Everything large has arrived, and nothing of it is visible yet.
    sent = len(stored_files(hub))
    assert sent > 0
    assert len(hub.repositories[REPO].commits) == 1
    assert stage_15(hub, tmp_path).returncode == 0
    assert len(stored_files(hub)) == sent
    members = read_packed(ARCHIVE).members
    assert set(hub.repositories[REPO].files) == {*members, "README.md"}


def test_a_large_file_that_breaks_off_is_sent_again(
    recipe: Path, hub: Hub, tmp_path: Path
) -> None:
    checkpoint = recipe / read_packed(ARCHIVE).files["asr_model_file"]
    line = f"PUT /storage/{hashlib.sha256(checkpoint.read_bytes()).hexdigest()}"
    hub.faults += [Fault(line, 503), Fault(line, None)]
    result = stage_15(hub, tmp_path)
    assert result.returncode == 0, result.stderr
    assert stored_files(hub).count(line) == 3


def test_a_token_that_is_refused(recipe: Path, hub: Hub, tmp_path: Path) -> None:
    line = error_of(stage_15(hub, tmp_path, token="hf_wrong"))
    assert line.startswith("error: the hub refused the token (401)")
    assert "hf auth login" in line
    assert not hub.repositories


def test_no_token(recipe: Path, hub: Hub, tmp_path: Path) -> None:
    line = error_of(stage_15(hub, tmp_path, token=None))
    assert "needs a token of the hub and found none" in line
    assert "HF_TOKEN=" in line
    assert not hub.requests


def test_a_name_of_somebody_else(recipe: Path, hub: Hub, tmp_path: Path) -> None:
    line = error_of(stage_15(hub, tmp_path, repo="other/tones"))
    assert "the token may not write to other/tones (403)" in line


def test_nobody_listens(recipe: Path, hub: Hub, tmp_path: Path) -> None:
    hub.__exit__()
    line = error_of(stage_15(hub, tmp_path))
    assert "the upload to user/tones broke off" in line
    assert "run the same command again" in line


@pytest.mark.parametrize("repo", ["tones", "user/", "a/b/c", "user/to nes", "user/-x"])
def test_a_name_without_user(repo: str) -> None:
    with pytest.raises(UserError, match=f"--hf_repo {repo} is no repository"):
        hub_calls.check_name(repo)
    hub_calls.check_name("user/tones_asr-1.0")


def test_no_name() -> None:
    with pytest.raises(UserError, match="--hf_repo is required"):
        hub_calls.check_name("")


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        hub_calls.check_ready()


def test_offline() -> None:
    # As the tests are run.
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE .* unset it"):
        hub_calls.check_ready()
