"""Stages 1 and 2: data preparation of the recipe, speed perturbation."""

import os
import re
import shlex
import sys
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io import processes
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.segments import read_segments
from espnet_cif_hkd.io.tables import (
    read_table,
    spk2utt,
    write_table,
)
from espnet_cif_hkd.recipe.context import Run

DATA_FILES = ("wav.scp", "text", "utt2spk")
_SCRIPT = Path("local/data.sh")


def source_sets(run: Run) -> list[str]:
    """Return the data folders that ``local/data.sh`` must make."""
    options = run.options
    names = [] if options.skip_train else [options.train_set]
    if options.valid_set and (not options.skip_train or options.eval_valid_set):
        names.append(options.valid_set)
    return names + options.test_sets.split()


def run_local_data(options: str) -> None:
    """Run ``local/data.sh`` with ``options`` split at spaces, as ``asr.sh`` does."""
    if not _SCRIPT.is_file():
        raise UserError(f"{_SCRIPT} is missing: the recipe must bring it")
    # It uses the Python of the engine, not another python3 in PATH.
    python = {"PYTHON": os.environ.get("PYTHON", sys.executable)}
    status = processes.run(["bash", str(_SCRIPT), *options.split()], python)
    if status != 0:
        raise UserError(
            f"local/data.sh {options} failed with exit status {status}: "
            "see its messages above"
        )


def prepare(run: Run) -> None:
    """Stage 1: run ``local/data.sh``, which makes ``data/SET`` for every set."""
    run_local_data(run.options.local_data_opts)
    for name in source_sets(run):
        for file in DATA_FILES:
            path = Path("data") / name / file
            if not path.is_file() or path.stat().st_size == 0:
                raise UserError(
                    f"local/data.sh left no {path}: correct local/data.sh "
                    "or the names of the sets"
                )


def factors(text: str) -> list[str]:
    """Return the checked speed factors of ``--speed_perturb_factors``."""
    words = text.split()
    for word in words:
        if not re.fullmatch(r"[0-9]*\.?[0-9]+", word) or float(word) <= 0:
            raise UserError(
                f"--speed_perturb_factors: {word!r} is not a positive number"
            )
    return words


def _sped_up(entry: str, factor: str) -> str:
    """Return a Kaldi command that changes the speed; stage 3 needs no sox for it."""
    if entry.endswith("|"):
        return f"{entry.rstrip('| ')} | sox -t wav - -t wav - speed {factor} |"
    kind = "-t wav " if entry.lower().endswith(".wav") else ""
    return f"sox {kind}{shlex.quote(entry)} -t wav - speed {factor} |"


def perturb(source: Path, target: Path, factor: str) -> None:
    """Write a data folder with ``source`` at ``factor`` times the speed.

    Utterances and speakers get the prefix ``sp<factor>-``; ``utt2uniq`` has the
    original utterance of each; times in ``segments`` are divided by the factor.
    """
    prefix = f"sp{factor}-"
    utt2spk = read_table(source / "utt2spk")
    write_table(
        target / "utt2spk",
        {prefix + utt: prefix + speaker for utt, speaker in utt2spk.items()},
    )
    write_table(target / "spk2utt", spk2utt(read_table(target / "utt2spk")))
    origin = {utt: utt for utt in utt2spk}
    if (source / "utt2uniq").is_file():
        origin.update(read_table(source / "utt2uniq"))
    write_table(target / "utt2uniq", {prefix + utt: origin[utt] for utt in utt2spk})
    scp = read_table(source / "wav.scp")
    write_table(
        target / "wav.scp",
        {prefix + key: _sped_up(entry, factor) for key, entry in scp.items()},
    )
    for name in ("text", "utt2lang", "spk2gender"):
        if (source / name).is_file():
            table = read_table(source / name)
            write_table(target / name, {prefix + k: v for k, v in table.items()})
    if (source / "segments").is_file():
        segments = {}
        for part in read_segments(source / "segments", scp):
            begin, end = part.begin / float(factor), part.end
            if end != -1:
                end /= float(factor)
            channel = "" if part.channel is None else f" {part.channel}"
            segments[prefix + part.utterance] = (
                f"{prefix}{part.recording} {begin:.2f} {end:.2f}{channel}"
            )
        write_table(target / "segments", segments)


def combine(sources: list[Path], target: Path) -> None:
    """Write the union of data folders, without files that one of them does not have."""
    for name in ("utt2spk", "text", "wav.scp", "segments", "spk2gender", "utt2lang"):
        if all((source / name).is_file() for source in sources):
            union: dict[str, str] = {}
            for source in sources:
                union.update(read_table(source / name))
            write_table(target / name, union)
        else:
            (target / name).unlink(missing_ok=True)
    uniq: dict[str, str] = {}
    for source in sources:
        if (source / "utt2uniq").is_file():
            uniq.update(read_table(source / "utt2uniq"))
        else:
            uniq.update({utt: utt for utt in read_table(source / "utt2spk")})
    write_table(target / "utt2uniq", uniq)
    write_table(target / "spk2utt", spk2utt(read_table(target / "utt2spk")))


def speed_perturb(run: Run) -> None:
    """Stage 2: write ``data/TRAIN`` at all speeds into ``data/TRAIN_sp``."""
    name = run.paths.source_train_set
    source = Path("data") / name
    sources = []
    for factor in factors(run.options.speed_perturb_factors):
        if float(factor) == 1.0:
            sources.append(source)
        else:
            target = Path("data") / f"{name}_sp{factor}"
            target.mkdir(parents=True, exist_ok=True)
            perturb(source, target, factor)
            sources.append(target)
    combine(sources, Path("data") / f"{name}_sp")
    count = len(read_table(Path("data") / f"{name}_sp" / "utt2spk"))
    log(f"stage 2: {count} utterances in data/{name}_sp")
