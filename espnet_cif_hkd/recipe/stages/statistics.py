"""Common part of stages 6 and 10: collect shapes and sums by one or several jobs."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import read_lines, split_evenly
from espnet_cif_hkd.recipe.checks.stamps import Fingerprint
from espnet_cif_hkd.recipe.commands import call, job_count, run_jobs

# With fewer utterances than this per job, the start-up costs more time than it saves.
UTTERANCES_PER_JOB = 4000


def collect(
    module: str,
    folder: Path,
    keys: dict[str, tuple[str, Sequence[str]]],
    arguments: Callable[[int, Path], Sequence[str]],
    wanted_jobs: int,
    what: str,
) -> list[Path]:
    """Run the ``--collect_stats`` mode of a training command.

    Args:
        module: ``espnet2.bin.asr_train`` or ``espnet2.bin.lm_train``.
        folder: the statistics folder; its ``logdir`` gets the output of each job.
        keys: for ``train`` and ``valid``, the prefix of the key files, and the lines to
            distribute over the jobs.
        arguments: makes the command line of job n with an output folder.
        wanted_jobs: largest number of processes.
        what: name of the task, for messages.

    Returns:
        The output folders of the jobs, in order.
    """
    logdir = folder / "logdir"
    if logdir.exists():
        shutil.rmtree(logdir)
    # Old shards must go, because asr.sh would train on them.
    for done in folder.glob("splits*/.done"):
        done.unlink()
    logdir.mkdir(parents=True)
    smallest = min(len(lines) for _, lines in keys.values())
    total = sum(len(lines) for _, lines in keys.values())
    jobs = min(job_count(wanted_jobs, total, UTTERANCES_PER_JOB), smallest)
    for prefix, lines in keys.values():
        for number, part in enumerate(split_evenly(lines, jobs), 1):
            text = "".join(f"{line}\n" for line in part)
            write_text(logdir / f"{prefix}.{number}.scp", text)
    outputs = [logdir / f"stats.{number}" for number in range(1, jobs + 1)]
    logs = [logdir / f"stats.{number}.log" for number in range(1, jobs + 1)]
    commands = [
        [*arguments(number, output)] for number, output in enumerate(outputs, 1)
    ]
    if jobs == 1:
        call(module, commands[0], logs[0], what)
    else:
        run_jobs(module, list(zip(commands, logs)), what)
    return outputs


def aggregate(
    outputs: Sequence[Path], folder: Path, vocabulary: int, token_type: str, sums: bool
) -> None:
    """Join the jobs' statistics in ``folder/{train,valid}``.

    ``text_shape.<token_type>`` is ``text_shape`` with the size of the vocabulary, from
    which ESPnet's batch samplers compute the size of an output.
    """
    command = [word for path in outputs for word in ("--input_dir", str(path))]
    command += ["--output_dir", str(folder)] + ([] if sums else ["--skip_sum_stats"])
    call(
        "espnet2.bin.aggregate_stats_dirs",
        command,
        folder / "logdir" / "aggregate_stats_dirs.log",
        "joining the statistics",
    )
    for part in ("train", "valid"):
        shapes = read_lines(folder / part / "text_shape")
        lines = [f"{line},{vocabulary}\n" for line in shapes]
        write_text(folder / part / f"text_shape.{token_type}", "".join(lines))


def split_scps(scps: list[Path], number: int, folder: Path) -> None:
    """Split key files into ``number`` shards, unless ``folder`` has these shards.

    ``folder/.done`` marks complete shards, as in ``asr.sh``; it contains the
    fingerprint of their sources. Shards without a fingerprint are made again.
    """
    done = folder / ".done"
    mark = Fingerprint().words(number).files(*scps).hexdigest() + "\n"
    if done.is_file() and done.read_text(encoding="utf-8") == mark:
        log(f"{folder} is up to date, splitting is skipped")
        return
    shutil.rmtree(folder, ignore_errors=True)
    call(
        "espnet2.bin.split_scps",
        [
            *("--scps", *map(str, scps)),
            *("--num_splits", str(number), "--output_dir", str(folder)),
        ],
        folder.with_name(f"{folder.name}.log"),
        "splitting",
    )
    write_text(done, mark)
