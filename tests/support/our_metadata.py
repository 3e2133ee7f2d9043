"""What pip records of this package, made from pyproject.toml of this checkout.

The environment of the tests may have been made from an older pyproject.toml.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_BUILD = """
import setuptools.build_meta as b, sys
print(b.prepare_metadata_for_build_wheel(sys.argv[1]))
"""


def metadata_in(folder: Path, scratch: Path) -> Path:
    """Write the ``dist-info`` folder of this package into ``folder``; return it.

    Args:
        folder: It must exist; on ``sys.path`` it precedes the installed package.
        scratch: Folder to make, for the files that the build reads.
    """
    (scratch / "espnet_cif_hkd").mkdir(parents=True)
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "espnet_cif_hkd/__init__.py",
    ):
        shutil.copy(ROOT / name, scratch / name)
    shutil.copytree(ROOT / "tools", scratch / "tools", symlinks=True)
    built = subprocess.run(
        [sys.executable, "-c", _BUILD, str(folder)],
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    for source in folder.glob("*.egg-info"):  # setuptools leaves it beside
        shutil.rmtree(source)
    return folder / built.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what pip records of this package, to precede the installed one."""
    scratch = tmp_path_factory.mktemp("record")
    (scratch / "site").mkdir()
    metadata_in(scratch / "site", scratch / "source")
    return scratch / "site"
