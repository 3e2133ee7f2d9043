"""Recognition of audio of any length, with the memory of one window.

Windows of the encoder overlap (:mod:`espnet_cif_hkd.inference.windows`); the running
sum of CIF does not see them. Passages between pauses are searched one after the other
(:mod:`espnet_cif_hkd.inference.passages`). No text is merged: each frame belongs to one
window and to one passage.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.encoder.geometry import known_frame_times
from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.inference.passages import Divider, Passage
from espnet_cif_hkd.inference.quiet import Sound
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.results import Frames
from espnet_cif_hkd.inference.speech import Samples
from espnet_cif_hkd.inference.windows import (
    Read,
    check_windows,
    encode_windows,
    no_frames,
)
from espnet_cif_hkd.io.atomic import writer
from espnet_cif_hkd.plugin.compat import TooShortUttError

if TYPE_CHECKING:
    from espnet_cif_hkd.inference.speech2text import Speech2Text


@dataclass(frozen=True)
class LongOptions:
    """How long audio is divided, in seconds.

    Attributes:
        window: Of the encoder, context included.
        context: On each side of a window.
        pause: Without speech, between two passages.
        longest: Passage without such a pause.
    """

    window: float = 24.0
    context: float = 3.0
    pause: float = 0.4
    longest: float = 20.0


def long_options(given: Mapping[str, float]) -> LongOptions:
    """Return the options with these values.

    Raises:
        UserError: A name is unknown or a value is no number.
    """
    known = asdict(LongOptions())
    for name, value in given.items():
        if name not in known:
            raise UserError(
                f"long audio has no option {name!r}; it has {', '.join(known)}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"long audio: {name} {value!r} must be a number of seconds")
    return LongOptions(**given)


@dataclass
class _State:
    """Where the recognition of an audio is.

    Attributes:
        key: What the state belongs to.
        after: Number of the first frame that is not encoded.
        is_last: Whether the audio is encoded completely.
        divider: Frames that are not searched.
        found: Results of the passages so far.
        written: The same in JSON, for the file: of an hour they take long to write, so
            each one is written once.
    """

    key: str
    after: int
    is_last: bool
    divider: Divider
    found: list[Recognition]
    written: list[str]


class LongAudio:
    """Recognises long audio with a model and a search.

    Args:
        speech2text: Model and search, with ``return_times``.
        options: Lengths of windows, pauses and passages.

    Raises:
        UserError: The model gives no weights or its frames no times, or the options do
            not fit.
    """

    def __init__(
        self, speech2text: "Speech2Text", options: LongOptions | None = None
    ) -> None:
        assert speech2text.results is not None, "long audio needs return_times"
        self._speech2text, self._results = speech2text, speech2text.results
        self._model = speech2text.asr_model
        self.options = options or LongOptions()
        times = known_frame_times(self._model, self._results.rate)
        if times is None:
            raise UserError(
                "long audio needs the times of encoder frames, which are unknown for "
                f"the encoder {type(self._model.encoder).__name__} with the frontend "
                f"{type(self._model.frontend).__name__}: divide the audio into files"
            )
        if not isinstance(self._model.decoder, CIFDecoder) and self._model.ctc is None:
            raise UserError(
                "long audio needs 'decoder: cif' or CTC to find pauses: divide the "
                "audio into files"
            )
        self._times = times
        for name in ("pause", "longest"):
            if getattr(self.options, name) <= 0:
                raise UserError(f"long audio: {name} must be more than 0 seconds")
        check_windows(self.options.window, self.options.context, times)

    def recognise(
        self,
        read: Read,
        duration: float,
        state: str | Path | None = None,
        key: str = "",
    ) -> Iterator[Recognition]:
        """Yield the result of each passage, with times of the complete audio.

        Args:
            read: Returns the samples between two times in seconds.
            duration: Length of the audio in seconds.
            state: File for the state after each passage; if it exists, the recognition
                goes on from there, and earlier results are yielded first. It is
                removed at the end.
            key: What distinguishes this audio and model from others, for the state.

        Yields:
            Results in order of time; an empty one after a window without a passage, so
            that whoever asks for them can do something else in between.

        Raises:
            UserError: The state is damaged or of another audio, model or options.
        """
        now = self._start(duration, key, state)
        yield from now.found
        for passage in self._passages(read, duration, now):
            if passage is None:
                yield Recognition(duration=duration)
                continue
            result = self._search(passage, duration, read)
            if result.tokens:
                now.found.append(result)
            if state is not None:
                _save(Path(state), now)
            yield result
        if state is not None:
            Path(state).unlink(missing_ok=True)

    def _start(self, duration: float, key: str, state: str | Path | None) -> _State:
        stride = self._times.stride
        frames, weights = no_frames(self._model.encoder.output_size())
        threshold = 0.5
        if isinstance(self._model.decoder, CIFDecoder):
            threshold = self._model.decoder.tail_threshold or 0.999
        options = {**asdict(self.options), "duration": duration, "key": key}
        now = _State(
            json.dumps(options, sort_keys=True),
            0,
            False,
            Divider(
                round(self.options.pause / stride),
                round(self.options.longest / stride),
                frames,
                weights,
                least=threshold,
            ),
            [],
            [],
        )
        if state is not None and Path(state).exists():
            _load(Path(state), now)
        return now

    def _passages(
        self, read: Read, duration: float, now: _State
    ) -> Iterator[Passage | None]:
        """Yield passages, and None after a window that completes none."""
        divider = now.divider
        if now.is_last:
            empty = divider.hidden[:0], divider.weights[:0]
            yield from divider.push(*empty, last=True)
            return
        windows = encode_windows(
            self._encode,
            read,
            duration,
            self._times,
            self.options.window,
            self.options.context,
            now.after,
        )
        for window in windows:
            is_only = now.after == 0 and window.last
            now.after, now.is_last = window.after, window.last
            if is_only:
                yield Passage(0, window.hidden)
                return
            found = divider.push(window.hidden, window.weights, window.last)
            first = next(found, None)
            yield first
            yield from found

    @torch.no_grad()
    def _encode(self, samples: Samples) -> tuple[Tensor, Tensor]:
        wave = self._speech2text._checked(samples, "samples")
        if not len(wave):
            raise TooShortUttError("has no samples", 0, 1)
        [hidden] = self._speech2text.encode([wave])
        hs_pad = hidden[None]
        if isinstance(self._model.decoder, CIFDecoder):
            hlens = torch.tensor([len(hidden)], device=hidden.device)
            return hidden, self._model.decoder.predictor(hs_pad, hlens)[0]
        blank = self._model.ctc.log_softmax(hs_pad)[0, :, self._model.blank_id]
        return hidden, -blank.expm1()

    def _search(self, passage: Passage, duration: float, read: Read) -> Recognition:
        times = self._times
        begin = passage.first * times.stride
        end = min(begin + (len(passage.hidden) + 2) * times.stride, duration)
        frames = Frames(
            passage.hidden,
            FrameTimes(times.offset + begin, times.stride),
            duration,
            sound=Sound(lambda: read(begin, end), self._results.rate, begin),
        )
        [result] = self._speech2text.recognitions([self._results.completed(frames)])
        return result


def _save(path: Path, now: _State) -> None:
    divider = now.divider
    meta = {
        "key": now.key,
        "after": now.after,
        "is_last": now.is_last,
        "first": divider.first,
    }
    for one in now.found[len(now.written) :]:
        now.written.append(json.dumps(one.to_dict()))
    text = f'{{"found": [{", ".join(now.written)}], {json.dumps(meta)[1:]}'
    with writer(path, "wb") as stream:
        np.savez(
            stream,
            meta=np.frombuffer(text.encode(), np.uint8),
            hidden=divider.hidden.float().cpu().numpy(),
            weights=divider.weights.float().cpu().numpy(),
        )


def _load(path: Path, now: _State) -> None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            meta: dict[str, Any] = json.loads(stored["meta"].tobytes())
            hidden = torch.from_numpy(stored["hidden"])
            weights = torch.from_numpy(stored["weights"])
        found = [Recognition.from_dict(one) for one in meta["found"]]
        divider = now.divider
        divider.hidden, divider.weights = hidden, weights
        divider.first = int(meta["first"])
        now.after, now.is_last, now.found = meta["after"], meta["is_last"], found
        key = meta["key"]
    except (
        *(OSError, EOFError, ValueError, KeyError, TypeError),
        zipfile.BadZipFile,
    ) as error:
        reason = one_line(error, 200)
        raise UserError(
            f"{path} is no state of a recognition ({reason}): remove it to start again"
        ) from error
    if key != now.key:
        raise UserError(
            f"{path} is the state of another audio, model or of other options: remove "
            "it to start again"
        )
