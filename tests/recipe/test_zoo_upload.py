"""Stage 15 against a hub on the loopback interface, through the real client."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny_recipe
import yaml
from finished_recipe import finished, refusal, run
from loopback_hub import TOKEN, Fault, Hub
from packed_model import ARCHIVE, OPTIONS, packed
from recipe_worker import RecipeWorker

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe.share import hub as hub_calls
from espnet_cif_hkd.recipe.share.packed import read_packed

__all__ = ["finished", "packed"]

huggingface_hub = pytest.importorskip(
    "huggingface_hub", reason="stage 15 needs huggingface_hub"
)
REPO = "user/tones"


@pytest.fixture
def recipe(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the packed recipe."""
    folder = tmp_path / "egs2" / "tones" / "asr_hkd"
    shutil.copytree(packed, folder)
    monkeypatch.chdir(folder)
    return folder


@dataclass
class Sharer:
    """A hub, and somebody who uploads the recipe of the working directory to it."""

    hub: Hub
    worker: RecipeWorker

    def upload(
        self, repo: str = REPO, token: str | None = TOKEN, **options: str
    ) -> "subprocess.CompletedProcess[str]":
        return self.worker.run(*stage_15(repo, **options), token=token)

    def stored(self) -> list[str]:
        return [line for line in self.hub.requests if line.startswith("PUT /storage/")]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sharer]:
    home = tmp_path_factory.mktemp("home")
    with Hub() as hub:
        worker = RecipeWorker(hub.environment(home), home)
        yield Sharer(hub, worker)
        worker.close()


@pytest.fixture
def sharer(running: Sharer) -> Sharer:
    running.hub.clear()
    return running


def stage_15(repo: str, **options: str) -> list[str]:
    options = {"skip_upload_hf": "false", "hf_repo": repo, **OPTIONS, **options}
    return tiny_recipe.options(lang="en", stage="15", **options)


def error_of(result: "subprocess.CompletedProcess[str]") -> str:
    assert result.returncode == 1, result.stdout + result.stderr
    lines = [s for s in result.stderr.splitlines() if s.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


def test_a_new_repository_and_then_the_same_again(recipe: Path, sharer: Sharer) -> None:
    first = sharer.upload()
    assert first.returncode == 0, first.stderr
    assert f"created the repository {REPO}" in first.stdout
    assert f"the model is at {sharer.hub.url}/{REPO}" in first.stdout
    repository = sharer.hub.repositories[REPO]
    members = read_packed(ARCHIVE).members
    assert set(repository.files) == {*members, "README.md"}
    for name, file in repository.files.items():
        assert file.content == (recipe / f"exp/hf_user_tones/{name}").read_bytes()
    assert any(file.large for file in repository.files.values())
    assert len(repository.commits) == 2

    sent = len(sharer.stored())
    again = sharer.upload()
    assert again.returncode == 0, again.stderr
    assert f"{REPO} exists and gets a new commit" in again.stdout
    assert f"{REPO} has these files already" in again.stdout
    assert len(repository.commits) == 2
    assert len(sharer.stored()) == sent


def test_a_private_repository(recipe: Path, sharer: Sharer) -> None:
    for _ in range(2):
        result = sharer.upload(hf_private="true")
        assert result.returncode == 0, result.stderr
        assert sharer.hub.repositories[REPO].private


def test_nothing_private_goes_into_a_public_repository(
    recipe: Path, sharer: Sharer
) -> None:
    assert sharer.upload().returncode == 0
    repository = sharer.hub.repositories[REPO]
    assert not repository.private
    sent, commits = len(sharer.stored()), len(repository.commits)
    line = error_of(sharer.upload(hf_private="true"))
    assert "--hf_private true, but user/tones is public" in line
    assert (len(sharer.stored()), len(repository.commits)) == (sent, commits)


def test_no_local_path_is_published(recipe: Path, sharer: Sharer) -> None:
    config = yaml.safe_load((recipe / ARCHIVE.parent / "config.yaml").read_text())
    teacher = config["model_conf"]["criterion_conf"]["teacher"]
    assert teacher.startswith("/")
    assert sharer.upload().returncode == 0
    files = sharer.hub.repositories[REPO].files
    texts = {n: f.content for n, f in files.items() if n.endswith((".md", ".yaml"))}
    assert len(texts) >= 4
    for name, content in texts.items():
        assert teacher.encode() not in content, name
        assert b"/tmp/" not in content, name
    uploaded = yaml.safe_load(files[f"{ARCHIVE.parent}/config.yaml"].content)
    assert uploaded["token_list"] == config["token_list"]
    assert uploaded["encoder_conf"] == config["encoder_conf"]


def test_the_model_card_that_is_uploaded(recipe: Path, sharer: Sharer) -> None:
    (recipe / "conf/model_card.yaml").write_text(
        "license: cc-by-4.0\nlanguage: en\ncorpus: Tones (synthetic)\n"
    )
    result = sharer.upload()
    assert result.returncode == 0, result.stderr
    card = sharer.hub.repositories[REPO].files["README.md"].content.decode()
    metadata = yaml.safe_load(re.match(r"---\n(.*?)---\n", card, re.DOTALL)[1])
    assert metadata["license"] == "cc-by-4.0"
    assert "states no licence" not in result.stdout
    # Valid by the client's own reading, too.
    text = (recipe / "exp/hf_user_tones/README.md").read_text()
    data = huggingface_hub.ModelCard(text, ignore_metadata_errors=False).data
    assert data.license == "cc-by-4.0" and data.library_name == "espnet"
    assert data.pipeline_tag == "automatic-speech-recognition"


def test_a_model_card_that_the_hub_refuses(recipe: Path, sharer: Sharer) -> None:
    (recipe / "conf/model_card.yaml").write_text("license: [1, 2]\n")
    line = error_of(sharer.upload())
    assert '"license" must be a string' in line
    assert "correct conf/model_card.yaml" in line
    assert not sharer.hub.storage


def test_an_existing_repository_keeps_what_it_has(recipe: Path, sharer: Sharer) -> None:
    assert sharer.upload().returncode == 0
    repository = sharer.hub.repositories[REPO]
    kept = repository.files["meta.yaml"]
    repository.commits.append({**repository.files, "notes.txt": kept})
    (recipe / "conf/model_card.yaml").write_text("license: mit\n")
    sent = len(sharer.stored())
    assert sharer.upload().returncode == 0
    assert repository.files["notes.txt"] is kept
    assert b"license: mit" in repository.files["README.md"].content
    # Only the card has changed, and only the card was sent.
    assert len(sharer.stored()) == sent


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("POST .*/commit/", 503), r"failed for the moment \(503\)"),
        (Fault("POST .*/commit/", None), "the upload to user/tones broke off"),
    ],
)
def test_a_failure_half_way_and_a_second_run(
    recipe: Path, sharer: Sharer, fault: Fault, message: str
) -> None:
    sharer.hub.faults.append(fault)
    line = error_of(sharer.upload())
    assert re.search(message, line)
    assert "run the same command again" in line
    # Everything large has arrived, and nothing of it is visible yet.
    sent = len(sharer.stored())
    assert sent > 0
    assert len(sharer.hub.repositories[REPO].commits) == 1
    assert sharer.upload().returncode == 0
    assert len(sharer.stored()) == sent
    members = read_packed(ARCHIVE).members
    assert set(sharer.hub.repositories[REPO].files) == {*members, "README.md"}


def test_a_large_file_that_breaks_off_is_sent_again(
    recipe: Path, sharer: Sharer
) -> None:
    checkpoint = recipe / read_packed(ARCHIVE).files["asr_model_file"]
    line = f"PUT /storage/{hashlib.sha256(checkpoint.read_bytes()).hexdigest()}"
    sharer.hub.faults += [Fault(line, 503), Fault(line, None)]
    result = sharer.upload()
    if result.returncode != 0:
        # Some clients try again after a refusal, but not after a cut.
        assert "run the same command again" in error_of(result)
        result = sharer.upload()
    assert result.returncode == 0, result.stderr
    assert sharer.stored().count(line) == 3


def test_a_token_that_is_refused(recipe: Path, sharer: Sharer) -> None:
    line = error_of(sharer.upload(token="hf_wrong"))
    assert line.startswith("error: the hub refused the token (401)")
    assert "hf auth login" in line
    assert not sharer.hub.repositories


def test_no_token(recipe: Path, sharer: Sharer) -> None:
    line = error_of(sharer.upload(token=None))
    assert "needs a token of the hub and found none" in line
    assert "HF_TOKEN=" in line
    assert not sharer.hub.requests


def test_a_run_that_ends_with_stage_15_is_refused_at_its_beginning(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Stage 1 would fail.
    shutil.rmtree("source")
    line = refusal(capfd, skip_upload_hf="false", hf_repo="tones", **OPTIONS)
    assert "--hf_repo tones is no repository" in line
    line = refusal(capfd, skip_upload_hf="false", hf_repo=REPO, **OPTIONS)
    assert "HF_HUB_OFFLINE" in line
    assert run(stage="15", **OPTIONS) == 0
    assert "no stage to run" in capfd.readouterr().out


def test_no_archive(recipe: Path, sharer: Sharer) -> None:
    ARCHIVE.unlink()
    line = error_of(sharer.upload())
    assert f"{ARCHIVE} is missing: run stage 14 first (--skip_packing false)" in line
    assert not sharer.hub.requests


def test_a_name_of_somebody_else(recipe: Path, sharer: Sharer) -> None:
    line = error_of(sharer.upload(repo="other/tones"))
    assert "the token may not write to other/tones (403)" in line


def test_nobody_listens(recipe: Path, tmp_path: Path) -> None:
    with Hub() as gone:
        pass
    line = error_of(gone.recipe(tmp_path, *stage_15(REPO)))
    assert "the upload to user/tones broke off" in line
    assert "run the same command again" in line


@pytest.mark.parametrize(
    "repo",
    ["tones", "user/", "a/b/c", "user/to nes", "user/-x", "a/b--c", f"a/{'b' * 95}"],
)
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
