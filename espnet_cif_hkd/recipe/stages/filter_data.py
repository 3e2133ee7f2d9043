"""Stage 4: select training utterances by duration; text for the language model."""

from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import (
    copy_data_dir,
    first_few,
    keep_utterances,
    read_lines,
    read_table,
    read_text,
    single_spaced,
    write_table,
    write_text,
)
from espnet_cif_hkd.recipe.checks import stamps
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.stages.data import run_local_data

DUMP_FILES = ("wav.scp", "text", "utt2spk", "utt2num_samples", "feats_type")


def _filter_set(run: Run, name: str) -> None:
    source, target = run.paths.data_feats / "org" / name, run.paths.data_feats / name
    stamps.require(source, 3, DUMP_FILES)
    stamps.begin(target, 4)
    copy_data_dir(source, target)
    for item in ("feats_type", "audio_format"):
        if (source / item).is_file():
            write_text(target / item, (source / item).read_text(encoding="utf-8"))
    shortest = int(run.options.min_wav_duration * run.rate)
    longest = int(run.options.max_wav_duration * run.rate)
    counts = read_table(source / "utt2num_samples")
    scp = read_table(source / "wav.scp")
    text = read_table(source / "text")
    fit = [utt for utt, n in counts.items() if shortest < int(n) < longest]
    kept = [utt for utt in fit if text.get(utt) and utt in scp]
    if not kept:
        raise UserError(
            f"stage 4 would leave nothing of {source}: change --min_wav_duration "
            "and --max_wav_duration"
        )
    write_table(target / "wav.scp", scp)
    write_table(target / "utt2num_samples", counts)
    keep_utterances(target, kept)
    _report(target, counts, set(fit), set(kept))


def _report(
    target: Path, counts: dict[str, str], fit: set[str], kept: set[str]
) -> None:
    log(f"stage 4: {len(kept)} of {len(counts)} utterances in {target}")
    misfit = sorted(set(counts) - fit)
    if misfit:
        log(f"stage 4: {len(misfit)} too short or too long: {first_few(misfit)}")
    silent = sorted(fit - kept)
    if silent:
        log(f"stage 4: {len(silent)} without a transcript: {first_few(silent)}")


def lm_train_text(run: Run) -> str:
    """Return the training text of the language model, lines ``utterance words…``."""
    lines = []
    for name in run.paths.lm_train_text.split():
        path = Path(name)
        if not path.is_file():
            raise UserError(
                f"--lm_train_text {name} is missing: name an existing text file, "
                f"such as data/{run.paths.source_train_set}/text"
            )
        suffix = path.name.replace("text", "", 1)
        for line in read_lines(path):
            key, *words = single_spaced(line).split(" ", 1)
            if words:
                lines.append(f"{key}{suffix} {words[0]}\n")
    return "".join(lines)


def filter_data(run: Run) -> None:
    """Stage 4: filter ``dump/raw/org/SET`` of training and validation."""
    for name in (run.paths.train_set, run.options.valid_set):
        _filter_set(run, name)
    if run.options.post_process_local_data_opts:
        run_local_data(
            f"{run.options.post_process_local_data_opts} "
            f"--asr_data_dir {run.paths.train_dir}"
        )
        text = run.paths.train_dir / "text"
        write_table(text, read_text(text, "local/data.sh has removed it"))
    write_text(run.paths.data_feats / "lm_train.txt", lm_train_text(run))
    mark = fingerprint(run)
    for name in (run.paths.train_set, run.options.valid_set):
        stamps.finish(run.paths.data_feats / name, 4, mark)


def fingerprint(run: Run) -> str:
    """Return the fingerprint of the inputs of stage 4."""
    options, feats = run.options, run.paths.data_feats
    mark = stamps.Fingerprint().words(
        run.rate,
        options.min_wav_duration,
        options.max_wav_duration,
        options.post_process_local_data_opts,
    )
    for name in (run.paths.train_set, options.valid_set):
        mark.files(*(feats / "org" / name / item for item in DUMP_FILES))
    if options.post_process_local_data_opts:
        mark.files("local")
    return mark.files(*run.paths.lm_train_text.split()).hexdigest()


def up_to_date(run: Run) -> bool:
    """Whether a run with ``--reuse true`` can skip stage 4."""
    mark = fingerprint(run)
    return (run.paths.data_feats / "lm_train.txt").is_file() and all(
        stamps.is_done(run.paths.data_feats / name, 4, mark, DUMP_FILES)
        for name in (run.paths.train_set, run.options.valid_set)
    )
