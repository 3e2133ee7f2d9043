"""A recipe whose asr.sh and Python only write down what they were called with."""

import os
import subprocess
from pathlib import Path

from espnet_cif_hkd.recipe import layout, options, paths


class RecordedRecipe:
    """A copy of a recipe in ``folder``; a call fails if ``fail_NAME`` exists.

    Args:
        corpus: name of the recipe.
        folder: where to put it.
    """

    def __init__(self, corpus: str, folder: Path) -> None:
        self.folder = folder
        layout.init([corpus, str(folder)])
        for name in ("asr.sh", "python"):
            stub = folder / name
            stub.unlink(missing_ok=True)
            stub.write_text(
                f'#!/bin/sh\nprintf "%s\\t" {name} "$@" >> calls\necho >> calls\n'
                f"[ ! -e fail_{name} ]\n"
            )
            stub.chmod(0o755)

    def run(
        self, *arguments: str, script: str = "run.sh", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script; :meth:`calls` has what it called."""
        (self.folder / "calls").unlink(missing_ok=True)
        inherited = {
            k: v
            for k, v in os.environ.items()
            if k not in ("ESPNET_ROOT", "LIBRISPEECH")
        }
        return subprocess.run(
            ["bash", script, *arguments],
            cwd=self.folder,
            env={**inherited, "PYTHON": str(self.folder / "python"), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[list[str]]:
        """All calls in order: ``asr.sh`` or ``python``, then the arguments."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.removesuffix("\t").split("\t") for line in lines]

    def trainings(self) -> list[options.Options]:
        """What asr.sh was called with."""
        return [options.parse(call[1:]) for call in self.calls() if call[0] == "asr.sh"]

    def python(self) -> list[list[str]]:
        """The arguments of Python."""
        return [call[1:] for call in self.calls() if call[0] == "python"]


def in_other_folders(
    recipe: RecordedRecipe, *words: str
) -> tuple[options.Options, list[str]]:
    """Run both trainings of ``--pretrain true`` in other folders, and check these.

    Args:
        recipe: The recipe.
        words: Further options of run.sh.

    Returns:
        The options of the first training, and all words of calls of Python.
    """
    done = recipe.run(
        *("--pretrain", "true", *words, "--expdir", "my/exp", "--dumpdir=my/dump"),
        *("--asr_exp", "my/model"),
    )
    assert done.returncode == 0, done.stderr
    first, second = recipe.trainings()
    for one in (first, second):
        assert (one.expdir, one.dumpdir) == ("my/exp", "my/dump")
    # The folder of the first training has the name that run.sh reads.
    assert (first.asr_exp, second.asr_exp) == ("", "my/model")
    name = paths.derive(first).asr_exp
    assert second.pretrained_model == f"{name}/valid.loss.ave.pth:encoder:encoder"
    return first, [word for call in recipe.python() for word in call]
