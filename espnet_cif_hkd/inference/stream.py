"""Recognition of a stream: audio in pieces of any size, results that only grow."""

import dataclasses
import logging
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.encoder.chunks import FULL
from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.encoder.geometry import known_frame_times
from espnet_cif_hkd.encoder.streaming import EncoderCache, chunk_span
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.cif_stream import CIFStream
from espnet_cif_hkd.inference.features import FeatureStream
from espnet_cif_hkd.inference.growing_stream import (
    GrowingStream,
    StreamOptions,
    StreamText,
)
from espnet_cif_hkd.inference.passage_stream import Fired, Place
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.results import ResultMaker
from espnet_cif_hkd.inference.speech import Samples, checked_samples
from espnet_cif_hkd.search.streaming import StreamingSearch, waiting_vectors
from espnet_cif_hkd.search.transducer_streaming import TransducerStream


class RecognitionStream(GrowingStream):
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
        times = known_frame_times(model, results.rate)
        timing = results.calibration.timing.of_stream(model.ctc is not None)
        check_model(model)
        self._features = FeatureStream(model.frontend)
        assert times is not None
        text = StreamText(symbols, results.text, times.offset, times.stride, timing)
        super().__init__(text, options)
        self._model, self._results = model, results
        self._span, self._needed = chunk_span(
            model.encoder, model.encoder.decoding_chunk_size
        )
        self._encoder: EncoderCache | None = None
        self._n_frames = 0
        self._firing: CIFStream | None = None
        self._transducer: TransducerStream | None = None
        if isinstance(model.decoder, CIFDecoder):
            self._firing = CIFStream(model.decoder, self._limits)
            self._search = self._new_search()
        else:
            self._transducer = TransducerStream(model.decoder, model.joint_network)

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
    def firing(self) -> CIFStream | None:
        """Weights and vectors of the stream; None for a transducer."""
        return self._firing

    @property
    def state_bytes(self) -> int:
        """Bytes of the stream's tensors; results and the model not counted."""
        total = self._features.state_bytes + _bytes(self._encoder)
        if self._transducer is not None:
            return total + _bytes(self._transducer.state)
        assert self._firing is not None
        return total + _bytes(self._firing.state) + self._search.state_bytes

    @torch.no_grad()
    def _advance(self, wave: Tensor, last: bool) -> Recognition:
        self._begin(last)
        parameter = next(self._model.parameters())
        wave = wave.to(parameter.device, parameter.dtype)
        hidden = self._encode(wave, last)
        if self._transducer is not None:
            self._transduce(hidden, self._transducer)
        elif hidden.size(1) or last:
            self._fire(hidden, last)
        return self._result(self._duration)

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
        self._extend(self._firing.push(hidden, last), self._duration)

    def _new_search(self) -> StreamingSearch:
        return StreamingSearch(self._model.decoder, self.options.beam_size)

    def _waiting(self, fired: Fired) -> list[Any]:
        return waiting_vectors(fired.vectors, fired.near)

    def _transduce(self, hidden: Tensor, search: TransducerStream) -> None:
        for frame, token in search.push(hidden[0]):
            is_full = len(self._passage) >= self.options.tokens
            if is_full and self._passage.begins_word(token.id):
                self._close(is_inside=True)
            begin = float(self._n_frames + frame)
            span = self._seconds(Place(begin, begin + 0.5, begin + 1.0))
            self._passage.add(token, span, self._duration)
        self._n_frames += hidden.size(1)


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
    is_cif = isinstance(model.decoder, CIFDecoder) and model.decoder.streams
    if not is_cif and decoder != "TransducerDecoder":
        raise UserError(
            f"a stream needs 'decoder: cif' or 'decoder: transducer', not {decoder}"
        )
    if is_cif and model.decoder.ctc_firing is not None:
        raise UserError(
            "a stream needs model_conf: ctc_guide_firing: alpha, not spikes: CTC's "
            "spikes are those of the complete audio"
        )
    if encoder.chunks.left < 0:
        logging.warning(
            "encoder_conf: left_chunks is -1: the memory of a stream and the time of a "
            "chunk grow with its length; set left_chunks to such as 4"
        )


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
