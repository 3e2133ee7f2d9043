"""Rules of imports that import-linter cannot express; the others: ``make lint``."""

import ast
from pathlib import Path

import espnet_cif_hkd

PACKAGE = Path(espnet_cif_hkd.__file__).parent
# Where the classes of ``espnet.nets`` are in one of the two releases.
MOVED = ("espnet", "espnet2.legacy")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_moved_modules_of_espnet_come_through_compat():
    bad = {
        path.relative_to(PACKAGE).as_posix(): names
        for path in sorted(PACKAGE.rglob("*.py"))
        if (names := [name for name in imported(path) if moved(name)])
    }
    assert bad == {}


def moved(name):
    return any(name == one or name.startswith(f"{one}.") for one in MOVED)
