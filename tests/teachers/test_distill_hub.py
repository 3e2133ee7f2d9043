"""A teacher by hub name: from the hub's cache, offline, at a pinned revision."""

import os
import subprocess
import sys

import pytest
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.text.plm import TeacherConfig, open_config

NAME = "tester/tiny-bert"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_hub_name_needs_a_revision():
    with pytest.raises(UserError, match="teacher_revision"):
        open_config(TeacherConfig(NAME, HIDDEN))


# The hub's client reads its cache's place once, on import: a process of its own.
OPEN = """
import sys
from espnet_cif_hkd.teachers.text.plm import TeacherConfig, open_teacher
for revision in sys.argv[2:]:
    tokenizer, model = open_teacher(TeacherConfig(sys.argv[1], 12, revision=revision))
    print(tokenizer.is_fast, model.config.hidden_size, model.training, flush=True)
"""


def open_by_name(cache, *revisions):
    """Open the teacher at each revision in turn, until one cannot be opened."""
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", OPEN, NAME, *revisions],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_hub_name_is_found_in_the_cache_at_its_revision(tmp_path):
    repository = tmp_path / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    build_tiny_bert(snapshot)
    found = open_by_name(tmp_path, COMMIT, COMMIT[::-1])
    assert found.stdout.split() == ["True", str(HIDDEN), "False"], found.stderr
    assert found.returncode != 0
    assert f"teacher {NAME} at revision {COMMIT[::-1]}" in found.stderr
