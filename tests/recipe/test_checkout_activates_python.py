"""With ESPNET_ROOT, Python is called after the checkout's path.sh has activated it.

The system's python3 has no soundfile, so users who rely on path.sh saw a traceback.
"""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_path_sh_comes_before_the_first_python(tmp_path):
    template = tmp_path / "espnet" / "egs2" / "TEMPLATE" / "asr1"
    template.mkdir(parents=True)
    (template / "asr.sh").write_text("")
    activated = tmp_path / "activated"
    activated.mkdir()
    python = activated / "python3"
    python.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    python.chmod(0o755)
    # Like ESPnet's, it reads a variable that is not set.
    (template / "path.sh").write_text(f': $UNSET\nexport PATH={activated}:"$PATH"\n')
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "UNSET")}
    environment["ESPNET_ROOT"] = str(tmp_path / "espnet")
    script = ROOT / "egs2" / "TEMPLATE" / "asr_hkd" / "asr.sh"
    subprocess.run(
        ["bash", script, "--stage", "4"], cwd=recipe, env=environment, check=True
    )
    assert "espnet_cif_hkd.recipe.stock" in (tmp_path / "called").read_text()
