"""Links between the pages of this repository lead somewhere."""

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MADE_BY_RUNS = {"build", "data", "dist", "downloads", "dump", "exp", "local_cache"}


def pages():
    for folder, names, files in os.walk(ROOT):
        names[:] = sorted(
            n for n in names if not n.startswith(".") and n not in MADE_BY_RUNS
        )
        yield from (Path(folder, f) for f in sorted(files) if f.endswith(".md"))


def targets(text):
    """What Markdown links and pictures point to, outside of blocks of code."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def anchors(text):
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ +(.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


PAGES = {str(path.relative_to(ROOT)): path for path in pages()}


def test_pages_are_found():
    assert {"README.md", "docs/configuration.md", "benchmarks/README.md"} <= set(PAGES)
    links = [t for path in PAGES.values() for t in targets(path.read_text("utf-8"))]
    assert len(links) > 20


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    path = PAGES[name]
    for target in targets(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        other = (path.parent / file) if file else path
        assert other.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in anchors(other.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", [p for p in PAGES if p.startswith("docs/")])
def test_the_index_has_every_page(page):
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert page == "docs/README.md" or Path(page).name in targets(index)
