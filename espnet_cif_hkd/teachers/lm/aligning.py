"""Forced alignment of Kaldi data folders, by one or several processes; resumable."""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io import lock
from espnet_cif_hkd.io.atomic import write_text, writer
from espnet_cif_hkd.io.processes import die_with_parent
from espnet_cif_hkd.io.tables import byte_order, read_text
from espnet_cif_hkd.teachers.lm.aligner import (
    VERSION,
    Aligner,
    NoAlignmentError,
    check_phones,
)
from espnet_cif_hkd.teachers.lm.lexicon import UNKNOWN, Lexicon, listed
from espnet_cif_hkd.teachers.lm.spans import ctm_lines, require_aligned
from espnet_cif_hkd.teachers.lm.units import BLANK, EOS
from espnet_cif_hkd.teachers.speech.recordings import ListedRecording, data_folder

PHONES, STATES, STATE_TOKENS = "phone.ctm", "state.ctm", "state_tokens.txt"
# One JSON object for each utterance, in the order of computation.
LOG = "alignments.jsonl"
_CHUNK = 8  # utterances that a process gets at once
_REPORT_SECONDS = 60.0


@dataclass(frozen=True)
class Speech:
    """The utterances to align.

    Attributes:
        folders: Kaldi data folders with ``text`` and ``wav.scp``.
        rate: their sampling rate in Hz.
        lexicon: path of the Kaldi lexicon.
    """

    folders: tuple[Path, ...]
    rate: int
    lexicon: Path

    def recordings(self) -> dict[str, ListedRecording]:
        """Return the recordings by utterance.

        Raises:
            UserError: a table is wrong, or an utterance occurs twice.
        """
        found: dict[str, ListedRecording] = {}
        for folder in self.folders:
            for one in data_folder(folder, self.rate):
                if one.name in found:
                    raise UserError(
                        f"{folder}: {one.name} is also in another --data_dir: name "
                        "each utterance once"
                    )
                found[one.name] = one
        return found

    def texts(self) -> dict[str, str]:
        """Return the transcripts by utterance.

        Raises:
            UserError: a table is missing or wrong.
        """
        found: dict[str, str] = {}
        for folder in self.folders:
            found.update(read_text(folder / "text"))
        return found


def align_folders(
    speech: Speech, out: Path, nj: int = 1, max_missing: float = 10.0
) -> None:
    """Write the alignments of data folders to ``out``, see :data:`PHONES`.

    What is computed is written at once; a further run continues after it. Utterances
    whose recording and pronunciations have not changed are not aligned again.

    Args:
        speech: the utterances.
        out: folder of the alignments.
        nj: number of processes.
        max_missing: largest accepted share of utterances without alignment, in percent.

    Raises:
        UserError: a file is wrong, too many utterances cannot be aligned, or another
            process writes to ``out``.
    """
    lexicon = Lexicon(speech.lexicon)
    check_phones(lexicon)
    names, texts = list(speech.recordings()), speech.texts()
    absent = [name for name in names if name not in texts]
    if absent:
        raise UserError(f"{speech.folders[0]}: no transcript of {absent[0]} in text")
    _check_words(lexicon, {name: texts[name] for name in names}, max_missing)
    refusal = f"another process writes to {out}: wait for it, or use another --out_dir"
    with lock.alone(out / ".align.lock", logging.warning, refusal):
        log = _Log(out / LOG)
        items = [(name, texts[name], log.keys.get(name, "")) for name in names]
        with contextlib.closing(log), contextlib.closing(_Workers(speech, nj)) as work:
            _align(items, work, log)
            failed = log.failed(names)
            _report_failed(failed)
            require_aligned(
                list(failed), len(names), max_missing, "--max_missing", str(out)
            )
            _write(log, [name for name in names if name not in failed], out)


def _check_words(lexicon: Lexicon, texts: dict[str, str], max_missing: float) -> None:
    """Report words without pronunciation, before anything is aligned.

    Raises:
        UserError: too many utterances have such words.
    """
    without = {}
    for name, text in texts.items():
        if words := lexicon.missing([text]):
            without[name] = words
    if not without:
        return
    missing: Counter[str] = sum(without.values(), Counter())
    logging.warning(
        "%d words have no pronunciation in %s, and utterances with them no alignment: "
        "%s",
        *(len(missing), lexicon.path, listed(missing)),
    )
    require_aligned(
        list(without), len(texts), max_missing, "--max_missing", str(lexicon.path)
    )


Result = dict[str, Any]
Item = tuple[str, str, str]


def _align(items: Sequence[Item], workers: "_Workers", log: "_Log") -> None:
    begin = last = time.monotonic()
    computed = 0
    for done, result in enumerate(workers.run(items), 1):
        if result is not None:
            log.add(result)
            computed += 1
        now = time.monotonic()
        if now - last > _REPORT_SECONDS:
            last = now
            logging.info("%d of %d utterances", done, len(items))
    logging.info(
        "%d utterances aligned in %.0f s, %d were aligned before",
        *(computed, time.monotonic() - begin, len(items) - computed),
    )


def _report_failed(failed: dict[str, str]) -> None:
    for reason, count in Counter(failed.values()).most_common(20):
        logging.warning("%d utterances not aligned: %s", count, reason)


class _Log:
    """The results on the disk, and where each of them is.

    A line that a killed process has not completed is removed.

    Attributes:
        keys: what the result of each utterance depends on, as a hash.
    """

    def __init__(self, path: Path) -> None:
        self.keys: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        self._places: dict[str, int] = {}
        self._stream: IO[bytes] = path.open("a+b")
        self._stream.seek(0)
        end = 0
        for line in self._stream:
            if not line.endswith(b"\n"):
                break
            try:
                self._note(json.loads(line), end)
            except (ValueError, KeyError) as error:
                raise UserError(
                    f"{path} is damaged: remove it, and align again"
                ) from error
            end += len(line)
        self._stream.truncate(end)
        self._end = end

    def _note(self, result: Result, place: int) -> None:
        name = result["utterance"]
        self.keys[name], self._places[name] = result["key"], place
        self._reasons.pop(name, None)
        if "failed" in result:
            self._reasons[name] = result["failed"]

    def add(self, result: Result) -> None:
        """Append a result."""
        line = json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n"
        data = line.encode()
        self._stream.write(data)
        self._stream.flush()
        self._note(result, self._end)
        self._end += len(data)

    def failed(self, names: Sequence[str]) -> dict[str, str]:
        """Return the reasons of failed utterances."""
        return {name: self._reasons[name] for name in names if name in self._reasons}

    def read(self, name: str) -> Result:
        """Return the result of an utterance."""
        self._stream.seek(self._places[name])
        result: Result = json.loads(self._stream.readline())
        return result

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class _Workers:
    """Aligns in this process, or in others."""

    def __init__(self, speech: Speech, nj: int) -> None:
        self._speech, self._nj = speech, nj
        self._pool: ProcessPoolExecutor | None = None

    def run(self, items: Sequence[Item]) -> Iterator[Result | None]:
        """Yield the result of each utterance, in order; None if it is known."""
        if self._nj < 2:
            _begin(self._speech)
            yield from map(_work, items)
            return
        start = (self._speech, os.getpid())
        context = get_context("spawn")
        self._pool = ProcessPoolExecutor(
            self._nj, context, initializer=_begin, initargs=start
        )
        try:
            yield from self._pool.map(_work, items, chunksize=_CHUNK)
        except BrokenProcessPool as error:
            raise UserError(
                f"one of {self._nj} processes has ended, perhaps for lack of memory; "
                "what is aligned is kept: run the same command with a smaller --nj"
            ) from error

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


_aligner: Aligner | None = None
_recordings: dict[str, ListedRecording] = {}


def _begin(speech: Speech, parent: int | None = None) -> None:
    global _aligner, _recordings
    if parent is not None:
        die_with_parent(parent)
    _aligner = Aligner(Lexicon(speech.lexicon))
    _recordings = speech.recordings()


def _work(item: Item) -> Result | None:
    assert _aligner is not None
    name, text, known = item
    recording = _recordings[name]
    try:
        phones: Any = _aligner.pronunciation(text)
    except NoAlignmentError as error:
        phones = str(error)
    key = _key(recording.key, phones)
    if key == known:
        return None
    result: Result = {"utterance": name, "key": key}
    if isinstance(phones, str):
        return {**result, "failed": phones}
    samples = recording.samples
    try:
        aligned = _aligner(text, samples, recording.rate)
    except NoAlignmentError as error:
        return {**result, "failed": str(error)}
    return {
        **result,
        "seconds": round(len(samples) / recording.rate, 4),
        "stride": _aligner.stride,
        "offset": _aligner.offset,
        "score": round(aligned.score, 3),
        "phones": [(one.label, one.start, one.states) for one in aligned.phones],
    }


def _key(recording: bytes, phones: Any) -> str:
    data = json.dumps([VERSION, phones]).encode()
    return hashlib.blake2b(recording + data, digest_size=16).hexdigest()


def _write(log: _Log, names: Sequence[str], out: Path) -> None:
    """Write the CTM files and the token list of the states."""
    states: set[str] = set()
    scores, durations = [], Counter[int]()
    with writer(out / PHONES) as phone_file, writer(out / STATES) as state_file:
        for name in sorted(names, key=byte_order):
            result = log.read(name)
            phone_file.write(ctm_lines(name, _spans(result, of_states=False)))
            state_file.write(ctm_lines(name, _spans(result, of_states=True)))
            states.update(s for _, _, parts in result["phones"] for s, _ in parts)
            scores.append(result["score"])
            durations.update(
                sum(n for _, n in parts) for _, _, parts in result["phones"]
            )
    tokens = [BLANK, UNKNOWN, *sorted(states, key=int), EOS]
    write_text(out / STATE_TOKENS, "".join(f"{token}\n" for token in tokens))
    frames = sorted(durations.elements())
    scores.sort()
    if frames:
        logging.info(
            "%s: %d utterances, %d phones, %d different states; median phone of %d "
            "frames; log-likelihood per frame: median %.2f, lowest %.2f",
            *(out, len(names), len(frames), len(states), frames[len(frames) // 2]),
            *(scores[len(scores) // 2], scores[0]),
        )


def _spans(result: Result, *, of_states: bool) -> Iterator[tuple[float, float, str]]:
    """Yield start and duration in seconds, and the name, of phones or states."""

    def seconds(frame: int) -> float:
        return min(result["offset"] + frame * result["stride"], result["seconds"])

    for label, start, parts in result["phones"]:
        spans = [(label, sum(n for _, n in parts))]
        for name, frames in parts if of_states else spans:
            begin, end = seconds(start), seconds(start + frames)
            yield begin, end - begin, name
            start += frames
