"""Stage 3: recordings become one audio file per utterance at one sampling rate."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.audio import (
    Sound,
    can_keep,
    checked,
    cut,
    needs_sox,
    read_utterance,
    resample,
)
from espnet_cif_hkd.io.disk import require_space
from espnet_cif_hkd.io.log import log, progress
from espnet_cif_hkd.io.tables import (
    byte_order,
    copy_data_dir,
    first_few,
    read_table,
    split_evenly,
    write_table,
    write_text,
)
from espnet_cif_hkd.recipe.checks import stamps
from espnet_cif_hkd.recipe.context import Run

Job = tuple[str, list[tuple[str, float, float]]]


def data_sets(run: Run) -> list[str]:
    """The data folders that stage 3 formats."""
    options = run.options
    names = [] if options.skip_train else [run.paths.train_set]
    if options.valid_set and (not options.skip_train or options.eval_valid_set):
        names.append(options.valid_set)
    return names + options.test_sets.split()


def target_dir(run: Run, name: str) -> Path:
    """Training and validation sets go to ``org``; stage 4 filters them from there."""
    filtered = name in (run.paths.train_set, run.options.valid_set)
    return run.paths.data_feats / ("org" if filtered else "") / name


def check_keys(folder: Path, utterances: set[str], allow_empty: bool) -> None:
    """Refuse a data folder whose files do not list the same utterances.

    Raises:
        UserError: a transcript, an audio entry or a speaker is missing.
    """
    text = read_table(folder / "text", "local/data.sh must write it")
    speakers = read_table(folder / "utt2spk", "local/data.sh must write it")
    audio = "segments" if (folder / "segments").is_file() else "wav.scp"
    for name, keys in (("text", set(text)), ("utt2spk", set(speakers))):
        for missing, where in ((utterances - keys, name), (keys - utterances, audio)):
            if missing:
                what = {"text": "transcript", "utt2spk": "speaker"}.get(where, "audio")
                listed = first_few(sorted(missing, key=byte_order))
                raise UserError(
                    f"{folder / where} has no {what} of {listed}: "
                    "add the lines, or take the utterances out of the other files"
                )
    if not allow_empty:
        empty = [utt for utt, words in text.items() if not words]
        if empty:
            raise UserError(
                f"{folder / 'text'}: the transcript of {first_few(empty)} is empty: "
                "fill it in, or drop such utterances by --drop_empty_text true"
            )


def _segments(folder: Path, scp: dict[str, str]) -> list[Job]:
    """Utterances by recording: ``(recording, [(utterance, begin, end)])``."""
    path = folder / "segments"
    jobs: dict[str, list[tuple[str, float, float]]] = {}
    for utterance, line in read_table(path).items():
        words = line.split()
        try:
            recording, begin, end = words[0], float(words[1]), float(words[2])
        except (IndexError, ValueError) as error:
            raise UserError(
                f"{path}: the line of {utterance} must be "
                "'utterance recording begin end'"
            ) from error
        if recording not in scp:
            raise UserError(
                f"{path}: {utterance} is cut from {recording}, "
                f"which {folder / 'wav.scp'} does not have"
            )
        jobs.setdefault(recording, []).append((utterance, begin, end))
    return list(jobs.items())


class _Formatter:
    """Formats the recordings of one data folder into ``outdir``."""

    def __init__(self, run: Run, folder: Path, target: Path) -> None:
        self.rate = run.rate
        self.format = run.options.audio_format
        self.folder = folder
        self.scp = read_table(folder / "wav.scp", "local/data.sh must write it")
        self.segmented = (folder / "segments").is_file()
        self.jobs: list[Job] = (
            _segments(folder, self.scp)
            if self.segmented
            else [(key, [(key, 0.0, -1.0)]) for key in sorted(self.scp, key=byte_order)]
        )
        self.utterances = [utt for _, parts in self.jobs for utt, _, _ in parts]
        # asr.sh puts the files of its n-th job into data/format.n.
        self.place: dict[str, str] = {}
        runs = split_evenly(sorted(self.utterances, key=byte_order), run.options.nj)
        for number, names in enumerate(runs, 1):
            self.place.update(dict.fromkeys(names, f"data/format.{number}"))
        self.target = target
        self.rates: Counter[int] = Counter()

    def check(self, allow_empty: bool) -> None:
        if not self.utterances:
            raise UserError(f"{self.folder / 'wav.scp'} lists no recording")
        check_keys(self.folder, set(self.utterances), allow_empty)
        for key, entry in self.scp.items():
            if needs_sox(entry):
                raise UserError(
                    f"{self.folder / 'wav.scp'}: {key} needs the program sox: "
                    "install sox"
                )

    def make(self, job: Job) -> list[tuple[str, str, int]]:
        """Write the utterances of one recording: (utterance, path, samples)."""
        recording, parts = job
        entry = self.scp[recording]
        whole = read_utterance(recording, entry)
        self.rates[whole.rate] += 1
        made = []
        for utterance, begin, end in parts:
            if not self.segmented and can_keep(whole, entry, self.format, self.rate):
                made.append((utterance, entry, len(whole.samples)))
                continue
            sound = cut(whole, begin, end) if self.segmented else whole
            checked(utterance, entry, sound)
            samples = resample(sound.samples, sound.rate, self.rate)
            made.append(self._write(utterance, Sound(samples, self.rate)))
        return made

    def _write(self, utterance: str, sound: Sound) -> tuple[str, str, int]:
        path = self.target / self.place[utterance] / f"{utterance}.{self.format}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(str(path), sound.samples, sound.rate, format=self.format)
        return utterance, str(path), len(sound.samples)

    def bytes_to_write(self) -> int:
        """A rough size of what will be written, from the size of the first files."""
        seconds, seen = 0.0, 0
        for entry in list(self.scp.values())[:50]:
            if not entry.endswith("|") and Path(entry).is_file():
                try:
                    information = soundfile.info(entry)
                except RuntimeError:
                    continue
                seconds += information.duration * information.channels
                seen += 1
        mean = seconds / seen if seen else 10.0
        shrink = 0.7 if self.format == "flac" else 1.0
        return int(len(self.scp) * mean * self.rate * 2 * shrink)


def _parallel(formatter: _Formatter, jobs: int) -> Iterator[list[tuple[str, str, int]]]:
    """Decoding and resampling release the interpreter: threads do."""
    workers = max(1, min(jobs, len(os.sched_getaffinity(0))))
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(formatter.make, job) for job in formatter.jobs]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _format_set(run: Run, name: str) -> None:
    folder, target = Path("data") / name, target_dir(run, name)
    formatter = _Formatter(run, folder, target)
    training = name in (run.paths.train_set, run.options.valid_set)
    formatter.check(allow_empty=not training or run.options.drop_empty_text)
    require_space(target, formatter.bytes_to_write(), f"stage 3 of {name}")

    stamps.begin(target, 3)
    for old in ("data", "wav.scp", "utt2num_samples", "segments"):
        path = target / old
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    copy_data_dir(folder, target)
    scp, counts = {}, {}
    made = _parallel(formatter, run.options.nj)
    for rows in progress(made, len(formatter.jobs), f"stage 3: {folder}"):
        for utterance, path_name, samples in rows:
            scp[utterance], counts[utterance] = path_name, str(samples)
    write_table(target / "wav.scp", scp)
    write_table(target / "utt2num_samples", counts)
    write_text(target / "feats_type", f"{run.options.feats_type}\n")
    write_text(target / "audio_format", f"{run.options.audio_format}\n")
    stamps.finish(target, 3, fingerprint(run, name))
    _tell(formatter, folder, target)


def _tell(formatter: _Formatter, folder: Path, target: Path) -> None:
    other = {rate: n for rate, n in formatter.rates.items() if rate != formatter.rate}
    log(f"stage 3: {len(formatter.utterances)} utterances in {target}")
    if other:
        rates = ", ".join(f"{n} from {rate} Hz" for rate, n in sorted(other.items()))
        log(f"stage 3: {folder}: resampled to {formatter.rate} Hz: {rates}")


def fingerprint(run: Run, name: str) -> str:
    """What stage 3 makes of the data folder ``name`` depends on."""
    folder = Path("data") / name
    mark = stamps.Fingerprint().words(run.rate, run.options.audio_format)
    mark.words(run.options.drop_empty_text)
    mark.files(*(folder / item for item in ("wav.scp", "segments", "text", "utt2spk")))
    for entry in read_table(folder / "wav.scp").values():
        if not entry.endswith("|") and Path(entry).is_file():
            status = Path(entry).stat()
            mark.words(status.st_size, status.st_mtime_ns)
    return mark.hexdigest()


def format_audio(run: Run) -> None:
    """Stage 3: ``data/SET`` to ``dump/raw/[org/]SET``."""
    for name in data_sets(run):
        needs = ("wav.scp", "text", "utt2spk", "utt2num_samples")
        target = target_dir(run, name)
        if run.options.reuse and stamps.is_done(
            target, 3, fingerprint(run, name), needs
        ):
            log(f"stage 3: {target} is up to date, reused")
            continue
        _format_set(run, name)
