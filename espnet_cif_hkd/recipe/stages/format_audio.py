"""Stage 3: convert recordings to one audio file per utterance at one rate."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import soundfile

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.audio import (
    Header,
    Sound,
    can_keep,
    check_channels,
    checked,
    cut,
    needs_sox,
    read_header,
    read_utterance,
    resample,
    select_channel,
)
from espnet_cif_hkd.io.disk import require_space
from espnet_cif_hkd.io.log import log, progress
from espnet_cif_hkd.io.segments import Segment, read_segments
from espnet_cif_hkd.io.tables import (
    byte_order,
    copy_data_dir,
    first_few,
    read_table,
    read_text,
    split_evenly,
    write_table,
    write_text,
)
from espnet_cif_hkd.recipe.checks import stamps
from espnet_cif_hkd.recipe.context import Run

T = TypeVar("T")
R = TypeVar("R")


class Row(NamedTuple):
    """An utterance of the dump: file, number of samples, number of channels."""

    utterance: str
    path: str
    samples: int
    channels: int


@dataclass(frozen=True)
class Made:
    """Result of one recording of ``rate`` Hz; ``clipped`` counts clipped samples."""

    recording: str
    rate: int
    clipped: int
    rows: list[Row]


def data_sets(run: Run) -> list[str]:
    """Return the data folders that stage 3 processes."""
    options = run.options
    names = [] if options.skip_train else [run.paths.train_set]
    if options.valid_set and (not options.skip_train or options.eval_valid_set):
        names.append(options.valid_set)
    return names + options.test_sets.split()


def target_dir(run: Run, name: str) -> Path:
    """Return the output folder; ``org`` for sets that stage 4 filters."""
    filtered = name in (run.paths.train_set, run.options.valid_set)
    return run.paths.data_feats / ("org" if filtered else "") / name


def check_keys(folder: Path, utterances: set[str], allow_empty: bool) -> None:
    """Check that all files of a data folder have the same utterances.

    Raises:
        UserError: a transcript, an audio entry or a speaker is missing.
    """
    text = read_text(folder / "text", "local/data.sh must write it")
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
    for utterance, speaker in speakers.items():
        if len(speaker.split()) != 1:
            raise UserError(
                f"{folder / 'utt2spk'}, line {speakers.lines[utterance]}: write "
                f"'{utterance} speaker', where the speaker is one word"
            )
    if not allow_empty:
        empty = [utt for utt, words in text.items() if not words]
        if empty:
            raise UserError(
                f"{folder / 'text'}: the transcript of {first_few(empty)} is empty: "
                "fill it in, or drop such utterances by --drop_empty_text true"
            )


class _Formatter:
    """Formats the recordings of one data folder into ``target``."""

    def __init__(self, run: Run, name: str) -> None:
        self.rate = run.rate
        self.options = run.options
        self.folder = Path("data") / name
        self.target = target_dir(run, name)
        self.training = name in (run.paths.train_set, run.options.valid_set)
        self.scp = read_table(self.folder / "wav.scp", "local/data.sh must write it")
        self.segmented = (self.folder / "segments").is_file()
        # The utterances of each recording.
        self.jobs: dict[str, list[Segment]] = {}
        segments = (
            read_segments(self.folder / "segments", self.scp)
            if self.segmented
            else [Segment(key, key, 0.0, -1.0, None, "") for key in self.scp]
        )
        for segment in sorted(segments, key=lambda item: byte_order(item.utterance)):
            self.jobs.setdefault(segment.recording, []).append(segment)
        # asr.sh puts the files of its n-th job into data/format.n.
        self.place: dict[str, str] = {}
        self.utterances = sorted((item.utterance for item in segments), key=byte_order)
        for number, names in enumerate(
            split_evenly(self.utterances, run.options.nj), 1
        ):
            self.place.update(dict.fromkeys(names, f"data/format.{number}"))
        self.bytes_to_write = 0

    def check(self) -> None:
        """Check tables and headers before any recording is decoded.

        Raises:
            UserError: a table or a recording is wrong.
        """
        if not self.utterances:
            raise UserError(f"{self.folder / 'wav.scp'} lists no recording")
        allow_empty = not self.training or self.options.drop_empty_text
        check_keys(self.folder, set(self.utterances), allow_empty)
        for key in self.jobs:
            place = f"{self.folder / 'wav.scp'}, line {self.scp.lines[key]}"
            if not self.scp[key]:
                raise UserError(f"{place}: {key} has no file: add its path")
            if needs_sox(self.scp[key]):
                raise UserError(f"{place}: {key} needs the program sox: install sox")
        found = in_threads(
            lambda key: read_header(key, self.scp[key]), self.jobs, self.options.nj
        )
        headers = list(progress(found, len(self.jobs), f"headers of {self.folder}"))
        channels: dict[str, int] = {}
        seconds = 0.0
        for segments, header in zip(self.jobs.values(), headers):
            if header is None:
                seconds += 10.0
                continue
            for segment in segments if self.segmented else ():
                segment.check_duration(header.seconds)
            written = {
                item.utterance: self._channels(item, header) for item in segments
            }
            channels.update(written)
            if not self._can_keep(segments[0], header):
                seconds += header.seconds * max(written.values())
        check_channels(channels, self.folder)
        shrink = 0.7 if self.options.audio_format == "flac" else 1.0
        self.bytes_to_write = int(seconds * self.rate * 2 * shrink)

    def _channels(self, segment: Segment, sound: Sound | Header) -> int:
        """Return the number of channels of an utterance."""
        one = self.options.channel or segment.channel is not None
        return 1 if one else sound.channels

    def _can_keep(self, segment: Segment, sound: Sound | Header) -> bool:
        entry, kind = self.scp[segment.recording], self.options.audio_format
        return (
            not self.segmented
            and self._channels(segment, sound) == sound.channels
            and can_keep(sound, entry, kind, self.rate)
        )

    def make(self, recording: str) -> Made:
        """Write the utterances of one recording."""
        entry = self.scp[recording]
        sound = read_utterance(recording, entry)
        rows = []
        for segment in self.jobs[recording]:
            channels = self._channels(segment, sound)
            path, count = entry, len(sound.samples)
            if not self._can_keep(segment, sound):
                path, count = self._write(segment, sound)
            rows.append(Row(segment.utterance, path, count, channels))
        return Made(recording, sound.rate, sound.clipped, rows)

    def _write(self, segment: Segment, sound: Sound) -> tuple[str, int]:
        utterance, channel = segment.utterance, self.options.channel
        if segment.channel is not None:
            channel = str(segment.channel)
            if segment.channel >= sound.channels:
                raise UserError(
                    f"{segment.place}: {utterance} is channel {channel} of "
                    f"{segment.recording}, which has {sound.channels}, counted from 0"
                )
        sound = select_channel(sound, channel, segment.recording)
        if self.segmented:
            segment.check_duration(sound.seconds)
            sound = cut(sound, segment.begin, segment.end)
            checked(utterance, self.scp[segment.recording], sound)
        samples = resample(sound.samples, sound.rate, self.rate)
        kind = self.options.audio_format
        path = self.target / self.place[utterance] / f"{utterance}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            soundfile.write(str(path), samples, self.rate, format=kind)
        except soundfile.LibsndfileError as error:
            raise UserError(f"{path} cannot be written: {error}") from error
        return str(path), len(samples)


def in_threads(
    function: Callable[[T], R], items: Iterable[T], most: int
) -> Generator[R, None, None]:
    """Yield results in order from threads; closing the generator stops them.

    Decoding and resampling release the global interpreter lock.
    """
    workers = max(1, min(most, len(os.sched_getaffinity(0))))
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _format_set(run: Run, formatter: _Formatter, name: str) -> None:
    folder, target = formatter.folder, formatter.target
    require_space(target, formatter.bytes_to_write, f"stage 3 of {name}")
    stamps.begin(target, 3)
    for old in ("data", "wav.scp", "utt2num_samples", "segments"):
        path = target / old
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    respaced = copy_data_dir(folder, target)
    rows: dict[str, Row] = {}
    rates: Counter[int] = Counter()
    clipped: Counter[str] = Counter()
    widths: set[int] = set()
    with closing(in_threads(formatter.make, formatter.jobs, run.options.nj)) as made:
        for one in progress(made, len(formatter.jobs), f"stage 3: {folder}"):
            rates[one.rate] += 1
            clipped[one.recording] = one.clipped
            rows.update({row.utterance: row for row in one.rows})
            widths.update(row.channels for row in one.rows)
            if len(widths) > 1:
                check_channels({key: row.channels for key, row in rows.items()}, folder)
    write_table(target / "wav.scp", {key: row.path for key, row in rows.items()})
    counts = {key: str(row.samples) for key, row in rows.items()}
    write_table(target / "utt2num_samples", counts)
    write_text(target / "feats_type", f"{run.options.feats_type}\n")
    write_text(target / "audio_format", f"{run.options.audio_format}\n")
    stamps.finish(target, 3, fingerprint(run, name))
    log(f"stage 3: {len(rows)} utterances in {target}")
    if respaced:
        log(f"stage 3: {folder}/text: white space of {respaced} lines normalised")
    _report(folder, run.rate, rates, +clipped, max(widths))


def _report(
    folder: Path, rate: int, rates: Counter[int], clipped: Counter[str], channels: int
) -> None:
    """Log resampling, clipping and channels of a set."""
    others = ", ".join(
        f"{n} from {r} Hz" for r, n in sorted(rates.items()) if r != rate
    )
    if others:
        log(f"stage 3: {folder}: resampled to {rate} Hz: {others}")
    if clipped:
        worst, most = clipped.most_common(1)[0]
        log(
            f"warning: stage 3: {folder}: {clipped.total()} samples of {len(clipped)} "
            f"recordings are outside -1 to 1 and were clipped, {most} of {worst}"
        )
    if channels > 1:
        log(
            f"stage 3: {folder}: all recordings keep {channels} channels; ESPnet's "
            "default front end trains on a random one, decodes the first: see --channel"
        )


def fingerprint(run: Run, name: str) -> str:
    """Return the fingerprint of the inputs of stage 3 for the data folder ``name``."""
    folder = Path("data") / name
    mark = stamps.Fingerprint().words(run.rate, run.options.audio_format)
    mark.words(run.options.drop_empty_text, run.options.channel)
    mark.files(*(folder / item for item in ("wav.scp", "segments", "text", "utt2spk")))
    for entry in read_table(folder / "wav.scp").values():
        if not entry.endswith("|") and os.path.isfile(entry):
            status = Path(entry).stat()
            mark.words(status.st_size, status.st_mtime_ns)
    return mark.hexdigest()


def _has_audio(target: Path) -> bool:
    """Whether all files of ``wav.scp`` exist; reads each folder of them once."""
    inside: dict[str, set[str]] = {}
    for path in read_table(target / "wav.scp").values():
        folder, name = os.path.split(path)
        if folder not in inside:
            place = folder or "."
            inside[folder] = set(os.listdir(place)) if os.path.isdir(place) else set()
        if name not in inside[folder]:
            return False
    return True


def format_audio(run: Run) -> None:
    """Stage 3: convert ``data/SET`` to ``dump/raw/[org/]SET``.

    All sets are checked before the first one is written.
    """
    formatters: dict[str, _Formatter] = {}
    for name in data_sets(run):
        needs = ("wav.scp", "text", "utt2spk", "utt2num_samples")
        target = target_dir(run, name)
        if (
            run.options.reuse
            and stamps.is_done(target, 3, fingerprint(run, name), needs)
            and _has_audio(target)
        ):
            log(f"stage 3: {target} is up to date, reused")
            continue
        formatters[name] = _Formatter(run, name)
        formatters[name].check()
    for name, formatter in formatters.items():
        _format_set(run, formatter, name)
