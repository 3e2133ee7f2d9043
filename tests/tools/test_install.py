"""tools/install.sh installs what pyproject.toml declares for development."""

import re
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def test_the_environment_has_every_extra_of_development() -> None:
    project = (TOP / "pyproject.toml").read_text(encoding="utf-8")
    script = (TOP / "tools/install.sh").read_text(encoding="utf-8")
    declared = re.search(r"^dev = \{ file = \[(.*?)\] \}", project, re.M | re.S)
    named = re.search(r'requirements-"\{"\$\{release\}",([\w,]+)\}\.txt', script)
    assert declared and named

    files = re.findall(r"tools/requirements-(\w+)\.txt", declared[1])

    assert sorted(files) == sorted(named[1].split(","))


def test_every_extra_is_part_of_development() -> None:
    project = (TOP / "pyproject.toml").read_text(encoding="utf-8")
    files = re.findall(r"^(\w+) = \{ file = \[\"tools/", project, re.M)

    declared = re.search(r"^dev = \{ file = \[(.*?)\] \}", project, re.M | re.S)
    assert declared and files

    assert all(f"requirements-{name}.txt" in declared[1] for name in files)
