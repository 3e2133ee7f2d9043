"""Stage 12: decoding and its duration."""

import re
import shutil
import time
from datetime import datetime
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import (
    byte_order,
    first_few,
    read_lines,
    read_table,
    split_evenly,
)
from espnet_cif_hkd.plugin.user_modules import module_files
from espnet_cif_hkd.recipe.checks import named_files, stamps
from espnet_cif_hkd.recipe.commands import call, job_count, run_jobs, write_run_script
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.stages.train import tokens_fingerprint

INPUT_FILES = ("wav.scp", "text", "utt2spk", "feats_type")
# With fewer utterances than this per job, the start-up costs more time than it saves.
UTTERANCES_PER_JOB = 40
_STAMPED = re.compile(
    r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}).*?(speech length: (\d+)|best hypo: )"
)


def _model_options(run: Run) -> list[str]:
    options, paths = run.options, run.paths
    language: list[str] = []
    if options.use_lm:
        language = [
            *("--lm_train_config", str(paths.lm_exp / "config.yaml")),
            *("--lm_file", str(paths.lm_exp / options.inference_lm)),
        ]
    config = options.inference_config
    return [
        *("--batch_size", str(options.batch_size)),
        *("--ngpu", "1" if options.gpu_inference else "0"),
        *("--asr_train_config", str(paths.asr_exp / "config.yaml")),
        *("--asr_model_file", str(paths.asr_exp / options.inference_asr_model)),
        *(["--config", config] if config else []),
        *language,
    ]


def real_time_factor(logs: list[Path], rate: int) -> dict[str, float]:
    """Compute the duration of decoding from the logs of ``asr_inference``.

    An utterance begins with ``speech length`` and ends with ``best hypo``. An utterance
    that is too short to be decoded has no end and is left out.

    Returns:
        ``audio`` and ``decoding`` in seconds, their ratio ``rtf``, and ``latency`` in
        milliseconds per utterance.
    """
    audio = decoding = 0.0
    count = 0
    for path in logs:
        begun: tuple[datetime, int] | None = None
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            match = _STAMPED.search(line)
            if match is None:
                continue
            now = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S")
            now = now.replace(microsecond=int(match[2]) * 1000)
            if match[4] is not None:
                begun = (now, int(match[4]))
            elif begun is not None:
                audio += begun[1] / rate
                decoding += (now - begun[0]).total_seconds()
                count += 1
                begun = None
    return {
        "audio": audio,
        "decoding": decoding,
        "rtf": decoding / audio if audio else 0.0,
        "latency": 1000 * decoding / count if count else 0.0,
    }


def _write_rtf(logdir: Path, logs: list[Path], rate: int) -> str:
    found = real_time_factor(logs, rate)
    write_text(
        logdir / "calculate_rtf.log",
        f"Total audio duration: {found['audio']:.3f} [sec]\n"
        f"Total decoding time: {found['decoding']:.3f} [sec]\n"
        f"RTF: {found['rtf']:.3f}\n"
        f"Latency: {found['latency']:.3f} [ms/sentence]\n",
    )
    return f"real-time factor {found['rtf']:.3f}"


def _collect_outputs(outputs: list[Path], folder: Path, keys: list[str]) -> None:
    """Join the results of the jobs line by line, as ``asr.sh`` does.

    Spaces at the end of a line are kept: after the name of an utterance with an empty
    hypothesis, or if a hypothesis ends with a single ``▁`` of sentencepiece.

    Raises:
        UserError: an utterance has no line; an empty hypothesis has one.
    """
    for name in ("token", "token_int", "score", "text"):
        parts = [path / "1best_recog" / name for path in outputs]
        if not parts[0].is_file():
            continue
        lines = {
            line.split(maxsplit=1)[0]: line
            for part in parts
            for line in read_lines(part)
        }
        missing = [key for key in keys if key not in lines]
        if missing:
            raise UserError(
                f"{folder / name} would lack {len(missing)} utterances "
                f"({first_few(missing)}): see the logs in {folder / 'logdir'}"
            )
        text = "".join(f"{lines[key]}\n" for key in sorted(lines, key=byte_order))
        write_text(folder / name, text)


def _seconds(run: Run, name: str) -> float:
    """Return the seconds of audio in a set; 0 if stage 3 wrote no lengths."""
    path = run.paths.data_feats / name / "utt2num_samples"
    counts = read_table(path).values() if path.is_file() else []
    return sum(map(int, counts)) / run.rate


def _decode_set(run: Run, name: str) -> None:
    options, paths = run.options, run.paths
    data, folder = paths.data_feats / name, paths.inference_dir() / name
    logdir = folder / "logdir"
    stamps.begin(folder, 12)
    if logdir.exists():
        shutil.rmtree(logdir)
    logdir.mkdir(parents=True)
    scp = read_table(data / "wav.scp")
    keys = sorted(scp, key=byte_order)
    # On a GPU one process, because each process would load the model.
    wanted = 1 if options.gpu_inference else options.inference_nj
    jobs = job_count(wanted, len(keys), UTTERANCES_PER_JOB)
    outputs, logs, commands = [], [], []
    for number, part in enumerate(split_evenly(keys, jobs), 1):
        key_file = logdir / f"keys.{number}.scp"
        write_text(key_file, "".join(f"{key} {scp[key]}\n" for key in part))
        outputs.append(logdir / f"output.{number}")
        logs.append(logdir / f"asr_inference.{number}.log")
        commands.append(
            [
                *_model_options(run),
                *("--data_path_and_name_and_type", f"{data}/wav.scp,speech,sound"),
                *("--key_file", str(key_file)),
                *("--output_dir", str(outputs[-1])),
                *options.inference_args.split(),
            ]
        )
    streaming = "_streaming" if options.use_streaming else ""
    module, what = f"espnet2.bin.asr_inference{streaming}", f"stage 12: {name}"
    device = "a GPU" if options.gpu_inference else f"{jobs} CPU processes"
    log(
        f"{what}: decoding {len(keys)} utterances on {device}, the logs are in {logdir}"
    )
    if jobs == 1:
        call(module, commands[0], logs[0], what)
    else:
        run_jobs(module, list(zip(commands, logs)), what)
    _collect_outputs(outputs, folder, keys)
    speed = "" if streaming else f", {_write_rtf(logdir, logs, run.rate)}"
    stamps.finish(folder, 12, fingerprint(run, name))
    texts = read_table(folder / "text")
    empty = [key for key in keys if not texts[key]]
    note = f", {len(empty)} empty ({first_few(empty)})" if empty else ""
    log(f"{what}: {len(keys)} hypotheses{speed}{note}")


def up_to_date(run: Run, name: str) -> bool:
    """Whether a run with ``--reuse true`` can keep the hypotheses of a set."""
    folder = run.paths.inference_dir() / name
    needs = ("text", "token", "token_int", "score")
    return stamps.is_done(folder, 12, fingerprint(run, name), needs)


def decode(run: Run) -> None:
    """Stage 12: decode the test sets, and the validation set if requested."""
    options, paths = run.options, run.paths
    stamps.require_model(paths.asr_exp, 11, options.inference_asr_model)
    if options.use_lm:
        stamps.require_model(paths.lm_exp, 7, options.inference_lm)
    for name in run.eval_sets():
        stamps.require(paths.data_feats / name, 3, INPUT_FILES)
    write_run_script(paths.inference_dir(), run.arguments, 12)
    begun, audio = time.monotonic(), 0.0
    for name in run.eval_sets():
        if options.reuse and up_to_date(run, name):
            log(f"stage 12: {paths.inference_dir() / name} is up to date, reused")
        else:
            _decode_set(run, name)
            audio += _seconds(run, name)
    wall = time.monotonic() - begun
    if audio:
        log(
            f"stage 12: {audio:.1f} s of audio in {wall:.1f} s with start-up: "
            f"real-time factor {wall / audio:.3f}"
        )


def fingerprint(run: Run, name: str) -> str:
    """Return the fingerprint of the inputs of decoding the set ``name``."""
    options, paths = run.options, run.paths
    mark = tokens_fingerprint(run).words(
        *(options.inference_args, options.batch_size, options.use_streaming),
        options.use_lm,
    )
    models = [(paths.asr_exp, options.inference_asr_model)]
    if options.use_lm:
        models.append((paths.lm_exp, options.inference_lm))
    for folder, model in models:
        mark.files(folder / "config.yaml", folder / model)
    data = paths.data_feats / name
    mark.words(stamps.recorded(data, 3, "fingerprint"))
    mark.files(*module_files(options.user_module))
    mark.files(*named_files.in_options(options.inference_args))
    mark.files(*named_files.in_config(options.inference_config))
    config = [options.inference_config] if options.inference_config else []
    return mark.files(data / "wav.scp", data / "utt2num_samples", *config).hexdigest()
