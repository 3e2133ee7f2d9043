"""Without ESPNET_ROOT, stage 1 does not read the path.sh of a checkout that is gone."""

import os
import subprocess
from pathlib import Path

DATA_SH = Path(__file__).resolve().parents[2] / "egs2/fotaq/asr_hkd/local/data.sh"


def run(folder, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "ESPNET_ROOT"}
    return subprocess.run(
        ["bash", DATA_SH, "--subset", "0", "--fotaq_archive", "absent.1c"],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_path_sh_is_read_for_a_checkout_only(tmp_path):
    (tmp_path / "path.sh").write_text("echo 'path.sh was read' >&2\nexit 7\n")
    alone = run(tmp_path)
    assert "path.sh was read" not in alone.stderr
    assert "absent.1c" in alone.stderr
    assert run(tmp_path, ESPNET_ROOT="/checkout").returncode == 7
