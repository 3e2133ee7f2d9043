"""Recognition of a stream: audio in pieces of any size, results that only grow."""

import dataclasses
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.encoder.chunks import FULL
from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.encoder.geometry import known_frame_times
from espnet_cif_hkd.encoder.streaming import EncoderCache, chunk_span
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.cif_stream import CIFStream, PassageLimits, Place
from espnet_cif_hkd.inference.features import FeatureStream
from espnet_cif_hkd.inference.joining import Joiner
from espnet_cif_hkd.inference.partial import GrowingPassage
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.results import ResultMaker
from espnet_cif_hkd.inference.spans import Timing
from espnet_cif_hkd.inference.speech import Samples, checked_samples
from espnet_cif_hkd.search.streaming import StreamedToken, StreamingSearch
from espnet_cif_hkd.search.transducer_streaming import TransducerStream


@dataclass(frozen=True)
class StreamOptions:
    """How a stream is searched.

    Attributes:
        beam_size: Hypotheses; 1: greedy search.
        pause: Seconds in which nobody speaks, after which a passage may end.
        tokens: Fewest tokens of a passage that ends in a pause.
        limit: Most tokens of a passage: the decoder remembers no more.
        keep: Whether every result has the complete text. Otherwise passages that have
            ended are in one result only, and the memory of a stream is bounded.
    """

    beam_size: int = 1
    pause: float = 0.5
    tokens: int = 100
    limit: int = 200
    keep: bool = True


def stream_options(given: Mapping[str, Any]) -> StreamOptions:
    """Return the options with these values.

    Raises:
        UserError: A name is unknown.
    """
    known = [one.name for one in dataclasses.fields(StreamOptions)]
    for name in given:
        if name not in known:
            raise UserError(
                f"a stream has no option {name!r}; it has {', '.join(known)}"
            )
    return StreamOptions(**given)


class RecognitionStream:
    """Recognises one stream.

    Tokens that a result has are in all later ones, unchanged and with the same times.
    The tokens do not depend on the pieces in which the audio comes; those of a passage
    are those of the offline search with the same chunk mask.

    Args:
        model: An ESPnet ASR model in ``eval`` mode, with the encoder ``cif_conformer``
            and ``decoding_chunk_size``.
        results: Of the model.
        symbols: The token list.
        options: Of the search.

    Raises:
        UserError: A part of the model needs the complete audio, or an option is wrong.
    """

    def __init__(
        self,
        model: Any,
        results: ResultMaker,
        symbols: list[str],
        options: StreamOptions | None = None,
    ) -> None:
        self._model, self._results, self._symbols = model, results, symbols
        self.options = options or StreamOptions()
        _check_options(self.options)
        check_model(model)
        self._features = FeatureStream(model.frontend)
        self._span, self._needed = chunk_span(
            model.encoder, model.encoder.decoding_chunk_size
        )
        times = known_frame_times(model, results.rate)
        assert times is not None
        self._times: FrameTimes = times
        self._timing = results.calibration.timing if model.ctc is None else Timing()
        self._encoder: EncoderCache | None = None
        self._n_frames = 0
        self._places: deque[Place] = deque()
        self._joiner = Joiner()
        self._ended = False
        self._passage = self._new_passage()
        self._firing: CIFStream | None = None
        self._search: StreamingSearch | TransducerStream
        if isinstance(model.decoder, CIFDecoder):
            self._limits = PassageLimits(
                max(1, round(self.options.pause / times.stride)),
                self.options.tokens,
                self.options.limit,
            )
            self._firing = CIFStream(model.decoder, self._limits)
            self._search = StreamingSearch(model.decoder, self.options.beam_size)
        else:
            self._search = TransducerStream(model.decoder, model.joint_network)

    def accept(self, samples: Samples) -> Recognition:
        """Add samples and return what is recognised so far.

        Args:
            samples: The next samples ``(S,)`` at the model's rate, float in [-1, 1] or
                int16; any number.

        Raises:
            UserError: The samples are wrong, or the stream has ended.
        """
        wave = checked_samples(samples, "samples", self._model.frontend)
        return self._advance(wave, last=False)

    def finish(self) -> Recognition:
        """End the stream and return the complete result.

        Raises:
            UserError: The stream has ended already.
        """
        return self._advance(torch.zeros(0), last=True)

    @property
    def state_bytes(self) -> int:
        """Bytes of the stream's tensors; results and the model not counted."""
        parts: list[Any] = [self._encoder]
        total = self._features.state_bytes
        if self._firing is not None:
            firing = self._firing
            parts += [firing.predictor, firing.firing, firing.frames]
        if isinstance(self._search, StreamingSearch):
            total += self._search.state_bytes
        else:
            parts.append(self._search.state)
        return total + sum(map(_bytes, parts))

    @torch.no_grad()
    def _advance(self, wave: Tensor, last: bool) -> Recognition:
        if self._ended:
            raise UserError("the stream has ended: open another one")
        self._ended = last
        if not self.options.keep:
            self._joiner.clear()
        parameter = next(self._model.parameters())
        wave = wave.to(parameter.device, parameter.dtype)
        hidden = self._encode(wave, last)
        if isinstance(self._search, TransducerStream):
            self._transduce(hidden, self._search)
        elif hidden.size(1) or last:
            self._fire(hidden, last)
        if last:
            self._close()
        return self._joiner.result(self._duration, self._passage.result())

    @property
    def _duration(self) -> float:
        return self._features.n_samples / self._results.rate

    def _encode(self, wave: Tensor, last: bool) -> Tensor:
        """Encoder frames that are complete now, ``(1, T, D)``."""
        model, cache = self._model, self._encoder
        until = self._needed + (cache.n_chunks if cache else 0) * self._span
        feats = self._features.push(wave, last, until)[None]
        if feats.size(1):
            lengths = torch.tensor([feats.size(1)], device=feats.device)
            if model.normalize is not None:
                feats, _ = model.normalize(feats, lengths)
            if model.preencoder is not None:
                feats, _ = model.preencoder(feats, lengths)
        elif not last or cache is None:
            return wave.new_zeros(1, 0, model.encoder.output_size())
        elif model.preencoder is not None:
            feats = wave.new_zeros(1, 0, model.preencoder.output_size())
        hidden, _, self._encoder = model.encoder.forward_chunk(feats, cache, last=last)
        return hidden  # type: ignore[no-any-return]

    def _fire(self, hidden: Tensor, last: bool) -> None:
        assert self._firing is not None
        for fired in self._firing.push(hidden, last):
            search = self._search
            assert isinstance(search, StreamingSearch)
            self._places += fired.places
            self._add(search.push(fired.vectors, fired.near))
            if fired.ends:
                self._add(search.finish())
                self._passage.score = search.score
                self._close(fired.is_inside)
                self._search = StreamingSearch(
                    self._model.decoder, self.options.beam_size
                )

    def _transduce(self, hidden: Tensor, search: TransducerStream) -> None:
        for frame, token in search.push(hidden[0]):
            is_full = len(self._passage) >= self.options.tokens
            if is_full and self._passage.begins_word(token.id):
                self._close(is_inside=True)
            begin = float(self._n_frames + frame)
            span = self._seconds(Place(begin, begin + 0.5, begin + 1.0))
            self._passage.add(token, span, self._duration)
        self._n_frames += hidden.size(1)

    def _add(self, tokens: list[StreamedToken]) -> None:
        for token in tokens:
            span = self._seconds(self._places.popleft())
            self._passage.add(token, span, self._duration)

    def _seconds(self, place: Place) -> tuple[float, float]:
        """Start and end of a token; they do not depend on later tokens."""
        begin, middle, end = (
            float(self._times.centres(torch.tensor(one - 0.5)))
            for one in (place.begin, place.middle, place.end)
        )
        timing = self._timing
        if middle - begin > 2 * timing.trail:
            begin = middle - timing.lead - timing.trail
        if end - middle > 2 * timing.trail:
            end = middle + timing.trail
        return begin, end

    def _close(self, is_inside: bool = False) -> None:
        """End the passage."""
        self._joiner.add(self._passage.result(), is_inside)
        self._places.clear()
        self._passage = self._new_passage()

    def _new_passage(self) -> GrowingPassage:
        earliest = self._passage.last if hasattr(self, "_passage") else (0.0, 0.0)
        return GrowingPassage(self._symbols, self._results.text, earliest)


def check_model(model: Any) -> None:
    """Check that no part of a model needs the complete audio.

    Raises:
        UserError: One does.
    """
    encoder = model.encoder
    if (
        not isinstance(encoder, CIFConformerEncoder)
        or encoder.decoding_chunk_size == FULL
    ):
        raise UserError(
            "a stream needs 'encoder: cif_conformer' with chunks, not "
            f"{type(encoder).__name__} with full context: set encoder_conf: "
            "decoding_chunk_size, for a model that was trained with chunks"
        )
    allowed = {
        "normalize": ("NoneType", "GlobalMVN"),
        "preencoder": ("NoneType", "LinearProjection"),
        "postencoder": ("NoneType",),
    }
    for name, kinds in allowed.items():
        kind = type(getattr(model, name, None)).__name__
        if kind not in kinds:
            advice = "; use normalize: global_mvn" if name == "normalize" else ""
            raise UserError(f"{name} {kind} cannot be streamed{advice}")
    decoder = type(model.decoder).__name__
    if not isinstance(model.decoder, CIFDecoder) and decoder != "TransducerDecoder":
        raise UserError(
            f"a stream needs 'decoder: cif' or 'decoder: transducer', not {decoder}"
        )
    if encoder.chunks.left < 0:
        logging.warning(
            "encoder_conf: left_chunks is -1: the memory of a stream and the time of a "
            "chunk grow with its length; set left_chunks to such as 4"
        )


def _check_options(options: StreamOptions) -> None:
    for name in ("beam_size", "tokens", "limit"):
        value = getattr(options, name)
        if type(value) is not int or value < 1:
            raise UserError(f"stream: {name} {value!r} must be an integer >= 1")
    if options.limit < options.tokens:
        raise UserError(
            f"stream: limit {options.limit} must not be less than tokens "
            f"{options.tokens}"
        )
    if not options.pause > 0:
        raise UserError(f"stream: pause {options.pause!r} must be more than 0 seconds")


def _bytes(part: Any) -> int:
    """Bytes of the tensors in dataclasses and tuples."""
    if isinstance(part, Tensor):
        return part.numel() * part.element_size()
    if isinstance(part, tuple | list):
        return sum(map(_bytes, part))
    if dataclasses.is_dataclass(part):
        fields = dataclasses.fields(part)
        return sum(_bytes(getattr(part, one.name)) for one in fields)
    return 0
