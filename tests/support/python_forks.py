"""Runs ``python3 -m MODULE`` many times, each in a process that has ESPnet imported.

Started as a program, it imports what takes long, nothing of this package, and forks a
process for each line on stdin. So the package registers its classes in each process, as
in one that Python starts.
"""

import json
import os
import runpy
import subprocess
import sys
import traceback
from pathlib import Path


class PythonForks:
    """Processes of Python whose imports are paid for once.

    Args:
        folder: Where their output goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run ``python3 -m WORDS`` in this process's working directory."""
        assert self.process.stdin is not None and self.process.stdout is not None
        outputs = [str(self.folder / name) for name in ("stdout", "stderr")]
        order = [os.getcwd(), words, dict(os.environ), outputs]
        print(json.dumps(order), file=self.process.stdin, flush=True)
        code = int(self.process.stdout.readline())
        printed = [Path(path).read_text(encoding="utf-8") for path in outputs]
        return subprocess.CompletedProcess(words, code, *printed)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def run_forked(
    cwd: str, words: list[str], variables: dict[str, str], descriptors: list[int]
) -> int:
    """Become ``python3 -m WORDS`` in a forked process.

    Args:
        cwd: the working directory.
        words: module and arguments.
        variables: the environment.
        descriptors: of standard input, output and error.

    Returns:
        The exit status.
    """
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [cwd, *added, *(path for path in sys.path[1:] if path not in added)]
    module, *_ = sys.argv = words
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(bool(error.code))
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def import_espnet() -> None:
    """Import what takes long, and nothing of this package."""
    import espnet2.tasks.asr
    import espnet2.tasks.lm  # noqa: F401

    assert not [name for name in sys.modules if name.startswith("espnet_cif_hkd")]


def _run(order: str) -> int:
    *what, outputs = json.loads(order)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return run_forked(*what, [0, *(os.open(path, flags) for path in outputs)])


def _serve() -> None:
    orders = sys.stdin
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is no answer
    import_espnet()
    for line in orders:
        child = os.fork()
        if child == 0:
            os._exit(_run(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers)
        answers.flush()
    os._exit(0)  # what was imported takes seconds to be torn down


if __name__ == "__main__":
    _serve()
