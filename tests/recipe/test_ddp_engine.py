"""Several GPUs with the pip-only engine: the command that stage 11 starts."""

import sys

import pytest
from espnet2.tasks.asr import ASRTask
from espnet2.train.distributed_utils import resolve_distributed_mode

from espnet_cif_hkd.recipe import options, paths
from espnet_cif_hkd.recipe.commands import train_model
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.stages.train import MODULE, training_arguments

SETS = ["--train_set", "train", "--valid_set", "dev", "--test_sets", "test"]
# In the place of the interpreter: a word a line.
PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "$@"
"""


@pytest.fixture
def started(tmp_path, monkeypatch):
    """The words of the process that training with these options starts."""

    def start(*arguments):
        parsed = options.parse([*SETS, *arguments])
        run = Run(parsed, paths.derive(parsed), arguments, [11])
        log = tmp_path / "train.log"
        train_model(MODULE, training_arguments(run), log, "stage 11", parsed.ngpu)
        return log.read_text().splitlines()[1:]

    monkeypatch.chdir(tmp_path)
    (tmp_path / "python3").write_text(PYTHON)
    (tmp_path / "python3").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    return start


def test_four_gpus_are_four_processes_for_espnet(started):
    words = started("--ngpu", "4", "--asr_args", "--accum_grad 2")
    assert words[:4] == ["-m", "espnet_cif_hkd", "-m", MODULE]
    args = ASRTask.get_parser().parse_args(words[4:])
    assert (args.ngpu, args.accum_grad) == (4, 2)
    resolve_distributed_mode(args)
    assert args.distributed and args.multiprocessing_distributed
