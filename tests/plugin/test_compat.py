"""The release of ESPnet is known without metadata of pip."""

import json
import os
import subprocess
import sys
from pathlib import Path

import espnet2
import pytest

ROOT = Path(__file__).parents[2]
PROBE = """
import importlib.metadata as metadata, json
found = metadata.version
def version(name):
    if name == "espnet":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
from espnet_cif_hkd.plugin.compat import ESPNET_RELEASE, BatchBeamSearch
import espnet2
print(json.dumps([ESPNET_RELEASE, espnet2.__file__, BatchBeamSearch.__module__]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("numbered", [True, False])
def test_a_checkout_on_pythonpath(tmp_path, numbered):
    """As of a checkout: the packages and version.txt beside them, nothing of pip."""
    for name in ("espnet", "espnet2"):
        source = Path(espnet2.__file__).parents[1] / name
        (tmp_path / name).mkdir()
        for entry in source.iterdir():
            (tmp_path / name / entry.name).symlink_to(entry)
    if numbered:
        (tmp_path / "version.txt").write_text(espnet2.__version__ + "\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    release, file, module = json.loads(done.stdout.splitlines()[-1])
    assert file.startswith(str(tmp_path))
    assert module.startswith(("espnet.nets", "espnet2.legacy.nets"))
    assert release == espnet2.__version__
