"""``run``: install a bundle, then test, measure and train within a time limit."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from gpu_check.bundle import FILE, TOP, BundleError
from gpu_check.report import Report
from gpu_check.steps import Runner, Step, fair_limit, say
from gpu_check.training import Training

PARTS = ("tests", "miniature", "benchmarks", "training")
ON_CPU = "ESPNET_CIF_HKD_GPU_TESTS_ON_CPU"
_RESERVE = 15.0  # seconds for the report
_MANY_CORES = 8  # with so many, steps without timing run at the same time
_DEFAULT_LIMIT = 540.0  # seconds
# Seconds at the default limit; other limits scale them. A benchmark that is stopped
# keeps its figures so far.
LIMITS = {
    "install": 120,
    "environment": 60,
    "tests": 180,
    "miniature recipe": 150,
    "miniature students": 100,
    "FOTAQ data": 150,
    "integrate_and_fire": 60,
    "contrastive": 45,
    "training_step": 90,
    "decoding": 90,
    "rnnt_loss": 30,
    "pretrain_step": 30,
    "streaming_encoder": 30,
    "training": 90,  # reserved; the training uses all remaining time
}
BENCHMARKS: dict[str, list[str]] = {
    "integrate_and_fire": [],
    "contrastive": [],
    "training_step": ["--complete", "--rounds", "3"],
    "decoding": ["--seconds", "5", "15", "--repeats", "2"],
    "rnnt_loss": ["--quick"],
    "pretrain_step": [],
    "streaming_encoder": [],
}
# For a CPU instead of a GPU: sizes that only show that each program runs.
QUICK: dict[str, list[str]] = {
    "integrate_and_fire": ["--shapes", "1"],
    "contrastive": ["--sizes", "250"],
    "training_step": ["--frames", "900", "--rounds", "1"],
    "decoding": ["--parts", "greedy", "--seconds", "2", "--repeats", "1"],
    "rnnt_loss": ["--quick", "--shapes", "1"],
    "pretrain_step": ["--teachers", "64", "--rounds", "1", "--seconds", "3"],
    "streaming_encoder": ["--seconds", "3"],
}
_QUICK_TRAINING = 90  # seconds


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run``."""
    parser.add_argument(
        "--bundle", type=Path, help=f"default: {FILE}, or the unpacked one around this"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=_DEFAULT_LIMIT,
        help="seconds for everything (540); limits of steps grow and shrink with it",
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument(
        "--out",
        type=Path,
        help="for the results (default: $OUT, else gpu_check_results)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        help="kept; default: a temporary folder, removed at the end",
    )
    parser.add_argument(
        "--steps", nargs="+", default=PARTS, choices=PARTS, help="default: all"
    )
    parser.add_argument(
        "--training",
        default="--system cif",
        metavar="OPTIONS",
        help="of FOTAQ's run.sh (default: '--system cif')",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: only shows that all runs"
    )


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt(f"signal {number}")


def main(args: argparse.Namespace, root: Path) -> int:
    """Run everything; return 1 if a test or a step failed.

    Raises:
        BundleError: There is no bundle, or it is not for this Python.
    """
    runner = Runner(args.limit - _RESERVE, _clean(args) / "logs")
    signal.signal(signal.SIGTERM, _interrupt)
    work = args.work or Path(tempfile.mkdtemp(prefix="gpu_check."))
    report = Report({}, wants_tests="tests" in args.steps)
    try:
        check = Check(args, unpack(args, root, work), work, runner, report)
        report.about.update(check.about())
        check.run()
    except KeyboardInterrupt as error:
        report.about["interrupted"] = str(error) or "by Ctrl-C"
    finally:
        runner.abandon()
        if report.about:
            report.write(args.out, runner.seconds)
        with tarfile.open(args.out / "logs.tar.gz", "w:gz") as tar:
            tar.add(runner.logs, "logs")
        shutil.rmtree(runner.logs)
        if args.work is None:
            shutil.rmtree(work, ignore_errors=True)
    print(report.markdown())
    good = report.good and "interrupted" not in report.about
    say(f"{'passed' if good else 'FAILED'}: {args.out}/results.md, results.json")
    return 0 if good else 1


def _clean(args: argparse.Namespace) -> Path:
    """Return the folder of the results, without those of an earlier run."""
    args.out = (
        args.out or Path(os.environ.get("OUT") or "gpu_check_results")
    ).resolve()
    if args.work is not None:
        args.work = args.work.resolve()
    for pattern in ("results.*", "logs.tar.gz", "training.tar.*"):
        for old in args.out.glob(pattern):
            old.unlink()
    return Path(args.out)


def unpack(args: argparse.Namespace, root: Path, work: Path) -> Path:
    """Unpack the bundle; return its folder."""
    file = args.bundle or root / FILE
    around = root.parent
    if args.bundle is None and not file.is_file():
        if around.name == TOP and (around / "manifest.json").is_file():
            return around
        raise BundleError(f"{file}: no such file; make it by tools/gpu_check.sh bundle")
    begun = time.monotonic()
    try:
        with tarfile.open(file) as tar:
            tar.extractall(work, filter="data")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BundleError(f"{file} cannot be unpacked: {error}") from None
    say(f"unpacked {file} in {time.monotonic() - begun:.1f} s")
    return work / TOP


class Check:
    """The steps of a run.

    Args:
        args: As :func:`add_options` reads them.
        bundle: The unpacked bundle.
        work: Scratch space.
        runner: Runs commands with time limits.
        report: Receives the results.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        bundle: Path,
        work: Path,
        runner: Runner,
        report: Report,
    ) -> None:
        self.args, self.work, self.runner, self.report = args, work, runner, report
        self.bundle, self.repo = bundle, bundle / "repo"
        self.manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
        here = ".".join(map(str, sys.version_info[:2]))
        if here != self.manifest["python"]:
            raise BundleError(
                f"{sys.executable} is Python {here}, and the bundle is for "
                f"{self.manifest['python']}: bundle --python {here}"
            )
        self.venv = work / "venv"
        self.python = str(self.venv / "bin" / "python3")
        self.cores = len(os.sched_getaffinity(0))
        self.training = Training(self.bundle, args, self.python, self.cores)
        self._later: list[str] = []  # names of the steps to come

    def about(self) -> dict[str, Any]:
        """Return the head of the report."""
        device = self.args.device
        return {
            "date": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "device": device if device == "cuda" else "cpu, standing in for a GPU",
            "quick": self.args.quick,
            "commit": self.manifest["commit"],
            "limit_seconds": self.args.limit,
            "cores": self.cores,
        }

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment variables of all steps but the installation."""
        path = os.environ.get("PATH", "")
        tools = str(Path(__file__).parents[1])
        folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        environment = {
            **os.environ,
            "PATH": f"{self.venv / 'bin'}{os.pathsep}{path}",
            "PYTHON": self.python,
            "PYTHONPATH": os.pathsep.join(f for f in folders if f and f != tools),
            "HF_HUB_OFFLINE": "1",
            **more,
        }
        environment.pop(ON_CPU, None)
        if self.args.device == "cpu":
            environment |= {ON_CPU: "1", "CUDA_VISIBLE_DEVICES": ""}
        if self.args.quick:  # on a busy machine OpenMP's threads wait at every barrier
            environment["OMP_NUM_THREADS"] = "1"
        return environment

    def run(self) -> None:
        """Run all steps in order; later steps run also after a failure."""
        parts, many = self.args.steps, self.cores >= _MANY_CORES
        benchmarks = list(BENCHMARKS) if "benchmarks" in parts else []
        students = ["miniature students"] if "miniature" in parts else []
        self._later = [*students, *benchmarks]
        self._later += ["training"] if "training" in parts else []
        self._prepare()
        untimed = [self._tests()] if "tests" in parts else []
        trains = "training" in parts
        if "miniature" in parts or (trains and not self.training.has_fotaq):
            untimed.append(self._step("miniature recipe", self.training.miniature()))
        if trains and self.training.has_fotaq:
            untimed.append(self._step("FOTAQ data", self.training.data()))
        if many:
            self._do(*untimed)
        else:
            self._later += [step.name for step in untimed]
            for step in untimed:
                self._do(step)
        for name in students:
            self._do(self._step(name, self.training.students()))
        for name in benchmarks:
            self._benchmark(name)
        if trains:
            self._train()

    def _do(self, *steps: Step) -> None:
        names = [step.name for step in steps]
        self._later = [name for name in self._later if name not in names]
        later = sum(map(self._limit, self._later))
        for step in steps:
            step.limit = fair_limit(step.limit, self.runner.left, later)
        self.report.steps += self.runner.together(steps)
        self.report.read_tests(self._outcomes)
        self.report.write(self.args.out, self.runner.seconds)

    @property
    def _outcomes(self) -> Path:
        return self.work / "outcomes.jsonl"

    def _step(self, name: str, command: list[str], **more: Any) -> Step:
        given = {"environment": self.environment(), "limit": self._limit(name), **more}
        return Step(name, command, cwd=self.training.folder_of(name), **given)

    def _limit(self, name: str) -> float:
        return LIMITS.get(name, 0.0) * self.args.limit / _DEFAULT_LIMIT

    def _prepare(self) -> None:
        here = Path(__file__).parent
        install = [sys.executable, str(here / "install.py")]
        self._do(
            Step(
                "install",
                [*install, str(self.bundle), str(self.venv)],
                self._limit("install"),
            )
        )
        target = self.work / "environment.json"
        command = [self.python, str(here / "environment.py"), self.args.device]
        self._do(self._step("environment", [*command, str(target)]))
        if target.is_file():
            self.report.about |= json.loads(target.read_text("utf-8"))

    def _tests(self) -> Step:
        command = [self.python, "-m", "pytest", "-v", "-m", "gpu", "tests/gpu"]
        folder = Path(__file__).parent
        paths = [str(folder), self.environment()["PYTHONPATH"]]
        environment = self.environment(
            GPU_CHECK_OUTCOMES=str(self._outcomes),
            PYTHONPATH=os.pathsep.join(filter(None, paths)),
        )
        command += ["-p", "outcomes", "-p", "no:cacheprovider"]
        return self._step("tests", command, environment=environment)

    def _benchmark(self, name: str) -> None:
        figures = self.work / f"{name}.json"
        sizes = QUICK if self.args.quick else BENCHMARKS
        command = [self.python, f"benchmarks/{name}.py", "--device", self.args.device]
        self._do(self._step(name, [*command, "--json", str(figures), *sizes[name]]))
        self.report.read_figures(name, figures)

    def _train(self) -> None:
        limit = self.runner.left
        if self.args.quick:
            limit = _QUICK_TRAINING * self.args.limit / _DEFAULT_LIMIT
        step = self._step(
            "training",
            self.training.command(),
            # Stopping and saving the checkpoint needs some of the remaining time.
            limit=min(limit, self.runner.left - 20),
            stops_at_limit=True,
            may_stop=self.training.checkpoint_is_complete,
        )
        say(f"training: {shlex.join(step.command)}")
        self._do(step)
        self.report.training = self.training.collect(self.args.out)
        if not self.report.training["epochs"] and self.report.steps[-1].good:
            self.report.steps[-1].message = "no epoch was completed"
