"""Runs the recipe engine many times, each in a process, and imports it once.

Started as a program, it imports what stage 15 needs and then, for every line on stdin,
forks a process that runs the engine.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path


class RecipeWorker:
    """``python3 -m espnet_cif_hkd.recipe`` with the start-up paid once.

    Args:
        environment: Of the processes.
        folder: Where their output goes.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *options: str, token: str | None
    ) -> "subprocess.CompletedProcess[str]":
        """Run the engine in this process's working directory."""
        assert self.process.stdin is not None and self.process.stdout is not None
        outputs = [str(self.folder / name) for name in ("stdout", "stderr")]
        order = [os.getcwd(), options, token, outputs]
        print(json.dumps(order), file=self.process.stdin, flush=True)
        code = int(self.process.stdout.readline())
        printed = [Path(path).read_text(encoding="utf-8") for path in outputs]
        return subprocess.CompletedProcess(options, code, *printed)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def _run(cwd: str, options: list[str], token: str | None, outputs: list[str]) -> int:
    from espnet_cif_hkd.recipe.cli import main

    for descriptor, path in zip((1, 2), outputs):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(cwd)
    os.environ.pop("HF_TOKEN", None)
    if token is not None:
        os.environ["HF_TOKEN"] = token
    try:
        return main(options)
    except BaseException:
        traceback.print_exc()
        return 2
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _serve() -> None:
    import torch  # noqa: F401
    from huggingface_hub import CommitOperationAdd, HfApi  # noqa: F401

    import espnet_cif_hkd.recipe.plan  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(_run(*json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
