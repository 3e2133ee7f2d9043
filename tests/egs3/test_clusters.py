"""The clusters of docs/espnet3.md have options that Dask takes; none runs here."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.espnet3, pytest.mark.slow]
PAGE = Path(__file__).parents[2] / "docs" / "espnet3.md"


def examples() -> dict[str, dict[str, Any]]:
    """The blocks ``parallel`` of the page by their environment."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(parallel:.*?)```", text, re.DOTALL)
    found = [yaml.safe_load(block)["parallel"] for block in blocks]
    return {one["env"]: one for one in found}


def test_the_page_has_an_example_of_each_kind() -> None:
    from espnet3.parallel.parallel import CLUSTER_MAP

    assert set(examples()) == {"local", "slurm", "ssh"}
    assert {"slurm", "ssh"} <= set(CLUSTER_MAP)


def test_slurm_gets_a_job_for_each_worker() -> None:
    from dask_jobqueue import SLURMCluster

    options = {**examples()["slurm"]["options"], "interface": "lo"}
    with SLURMCluster(**options, n_workers=0) as cluster:
        script = cluster.job_script()
    for words in ("-p cpu", "-A MY_ACCOUNT", "--mem=8G", "--chdir=", "OMP_NUM_THREADS"):
        assert words in script
    assert "/shared/venv/bin/python -m distributed.cli.dask_worker" in script
    assert "--nthreads 1" in script and "--nworkers" not in script


def test_ssh_starts_a_worker_on_each_host_but_the_first() -> None:
    from dask.distributed import Nanny, SSHCluster

    example = examples()["ssh"]
    options = example["options"]
    inspect.signature(SSHCluster).bind(**options)
    assert example["n_workers"] == len(options["hosts"]) - 1
    inspect.signature(Nanny).bind_partial(**options["worker_options"])
