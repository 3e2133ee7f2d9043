"""Recognition with an exported model, in numpy and onnxruntime."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.assemble import assembled, silent_tokens, text_pieces
from espnet_cif_hkd.inference.by_length import in_batches
from espnet_cif_hkd.inference.confidence import confidences
from espnet_cif_hkd.inference.cut_windows import WINDOW, Read, recognise_windows
from espnet_cif_hkd.inference.evidence import Evidence
from espnet_cif_hkd.inference.gaps import flags
from espnet_cif_hkd.inference.growing_stream import stream_options
from espnet_cif_hkd.inference.onnx_folder import (
    FEATURES,
    TOKENS,
    Array,
    Arrays,
    Graphs,
    checked,
    decoder_of,
    read_metadata,
    read_tokens,
)
from espnet_cif_hkd.inference.onnx_lengths import OnnxLengths, Search
from espnet_cif_hkd.inference.onnx_search import Decoded, OnnxSearch
from espnet_cif_hkd.inference.onnx_stream import OnnxStream
from espnet_cif_hkd.inference.quiet import Sound, quiet_borders
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.spans import Timing, token_spans
from espnet_cif_hkd.io.audio import resample
from espnet_cif_hkd.io.features import FeatureSpec

# The graphs of each decoder.
_DECODERS = {
    "step": ["step"],
    "one_pass": ["one_pass"],
    "transducer": ["predict", "joint"],
    "whisper": ["memory", "step"],
}


class OnnxRecognizer:
    """An exported model with greedy or one-pass search, or for streams.

    Args:
        folder: Made by ``python3 -m espnet_cif_hkd.cli.export``.
        int8: Use the graphs with weights of 8 bits.
        one_pass: Use the one-pass decoder; None: if there is no other decoder.
        fallback_below: Utterances whose least probable token has a probability below
            this are decoded again by the autoregressive decoder; 0: none.
        batch_size: Largest number of utterances that are processed together.
        threads: Threads of onnxruntime; 0: it decides.

    Attributes:
        sampling_rate: Of the audio, in Hz.
        tokens: The token list.

    Raises:
        UserError: The folder holds no exported model, or an option does not fit it.

    Example:
        >>> recognizer = OnnxRecognizer("exported")
        >>> recognizer.recognise(samples).text
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        int8: bool = False,
        one_pass: bool | None = None,
        fallback_below: float = 0.0,
        batch_size: int = 16,
        threads: int = 0,
    ) -> None:
        self.folder = Path(folder)
        self.metadata = read_metadata(self.folder)
        decoders: list[str] = self.metadata["decoders"]
        self.decoder = decoders[0]
        if one_pass:
            self.decoder = "one_pass"
        elif one_pass is False and self.decoder == "one_pass":
            self.decoder = "step"
        if self.decoder not in decoders:
            raise UserError(
                f"{self.folder}: the exported model has no decoder {self.decoder!r}, "
                f"only {' and '.join(decoders)}; change one_pass"
            )
        if fallback_below and not (self.one_pass and "step" in decoders):
            raise UserError(
                "fallback_below needs one_pass and a model with both decoders"
            )
        self.fallback_below, self.batch_size = fallback_below, batch_size
        self.sampling_rate = int(self.metadata["sampling_rate"])
        self.tokens = tuple(read_tokens(self.folder / TOKENS))
        self._features: FeatureSpec | None = None
        if self.metadata["input"] == "features":
            if not (self.folder / FEATURES).is_file():
                raise UserError(f"{self.folder / FEATURES} is missing: export again")
            self._features = FeatureSpec.load(self.folder / FEATURES)
        used = ["chunk", "weights"] if self.is_streaming else ["encoder"]
        used += _DECODERS[self.decoder]
        choice = self.metadata.get("choice")
        used += [] if choice is None else ["fire"]
        self.graphs = Graphs(
            self.folder, used + ["step"] * bool(fallback_below), int8, threads
        )
        self.search = OnnxSearch(self.graphs, self.metadata)
        self._lengths = None if choice is None else OnnxLengths(self.graphs, **choice)

    @property
    def one_pass(self) -> bool:
        """Whether the one-pass decoder is used."""
        return self.decoder == "one_pass"

    @property
    def is_streaming(self) -> bool:
        """Whether the model was exported with ``--streaming``."""
        return "streaming" in self.metadata

    def stream(self, **options: Any) -> OnnxStream:
        """Open a stream: audio in pieces, results that only grow.

        Args:
            options: Of :class:`espnet_cif_hkd.inference.growing_stream.StreamOptions`.

        Raises:
            UserError: The model was exported without ``--streaming``, or an option is
                wrong.
        """
        if not self.is_streaming:
            raise UserError(
                f"{self.folder} was exported for complete utterances: use recognise(), "
                "or export the model again with --streaming"
            )
        return OnnxStream(
            self.graphs, self.metadata, self.tokens, stream_options(options)
        )

    @overload
    def recognise(self, samples: Array) -> Recognition: ...

    @overload
    def recognise(self, samples: Sequence[Array]) -> list[Recognition]: ...

    def recognise(
        self, samples: Array | Sequence[Array]
    ) -> Recognition | list[Recognition]:
        """Recognise one utterance or a list of utterances.

        Args:
            samples: ``(S,)`` at :attr:`sampling_rate`, float in [-1, 1] or int16, or a
                list of these.

        Returns:
            A result, or a list of results in the same order. Audio that is too short
            has an empty result.

        Raises:
            UserError: The type, shape or a value is wrong, or the model was exported
                with ``--streaming``.
        """
        if self.is_streaming:
            raise UserError(
                f"{self.folder} was exported with --streaming: use stream(), or export "
                "the model again without --streaming"
            )
        if not isinstance(samples, list | tuple):
            return self._recognise([checked(samples, "samples")])[0]
        waves = [checked(one, f"samples[{n}]") for n, one in enumerate(samples)]
        size = self.batch_size if self.metadata["batches"] else 1
        return in_batches(waves, size, self._recognise)

    def long(
        self,
        read: Read,
        duration: float,
        *,
        state: str | Path | None = None,
    ) -> Iterator[Recognition]:
        """Recognise long audio in windows that end in pauses between words.

        Args:
            read: Returns the samples between two times in seconds, at
                :attr:`sampling_rate`.
            duration: Length of the audio in seconds.
            state: File for the state, to go on after an interruption.

        Yields:
            The result of each passage, with times of the complete audio.

        Raises:
            UserError: As :meth:`recognise`, or the state is damaged.
        """
        window = WINDOW
        if "longest_samples" in self.metadata:
            longest = int(self.metadata["longest_samples"]) / self.sampling_rate
            window = min(window, longest)
        path = None if state is None else Path(state)
        return recognise_windows(self.recognise, read, duration, window, path)

    def _recognise(self, waves: list[Array]) -> list[Recognition]:
        results = [Recognition(duration=len(w) / self.sampling_rate) for w in waves]
        most = int(self.metadata.get("longest_samples", max(map(len, waves))))
        if max(map(len, waves)) > most:
            raise UserError(
                f"audio of {max(map(len, waves)) / self.sampling_rate:.1f} s is longer "
                f"than the {most / self.sampling_rate:g} s that this model reads: "
                "divide it"
            )
        least = max(1, int(self.metadata["fewest_samples"]))
        long = [n for n, wave in enumerate(waves) if len(wave) >= least]
        if long:
            encoded = self.encode([waves[n] for n in long])
            for row, (n, found) in enumerate(
                zip(long, self.decode(encoded), strict=True)
            ):
                results[n] = self._result(encoded, row, found, waves[n])
        return results

    def encode(self, waves: Sequence[Array]) -> Arrays:
        """Run the encoder graph on utterances, each long enough for it.

        Returns:
            Its outputs by name.
        """
        rate = int(self.metadata.get("graph_rate", self.sampling_rate))
        given = [resample(wave, self.sampling_rate, rate) for wave in waves]
        if self._features is not None:
            given = [self._features(wave) for wave in given]
        lengths = np.array([len(one) for one in given])
        shape = (len(given), int(lengths.max()), *given[0].shape[1:])
        speech = np.zeros(shape, np.float32)
        for row, one in zip(speech, given, strict=True):
            row[: len(one)] = one
        return self.graphs.run("encoder", {"speech": speech, "lengths": lengths})

    def decode(self, encoded: Arrays) -> list[Decoded]:
        """Find the tokens of the utterances of :meth:`encode`."""
        if self.decoder == "transducer":
            return self.search.transducer(encoded)
        if not self.one_pass:
            return self._chosen(encoded, self.search.greedy)
        found = self._chosen(encoded, self.search.one_pass)
        weak = [n for n, one in enumerate(found) if one.least < self.fallback_below]
        if weak:
            rows = {name: one[weak] for name, one in encoded.items()}
            again = self._chosen(rows, self.search.greedy)
            for n, one in zip(weak, again, strict=True):
                found[n] = one
        return found

    def _chosen(self, encoded: Arrays, search: Search) -> list[Decoded]:
        """Search, with the number of tokens that the decoder chooses, if it may."""
        if self._lengths is None:
            return search(encoded)
        return self._lengths.best(encoded, search)

    def _result(
        self, encoded: Arrays, row: int, found: Decoded, wave: Array
    ) -> Recognition:
        duration = len(wave) / self.sampling_rate
        if not found.ids:
            return Recognition(duration=duration, score=found.score)
        n_frames = int(encoded["frame_lengths"][row])
        ctc = encoded["ctc"][row, :n_frames] if "ctc" in encoded else None
        known = self.metadata["calibration"]
        alpha = encoded["alpha"][row] if "alpha" in encoded else None
        alpha = alpha if found.weights is None else found.weights
        evidence = Evidence(
            found.ids,
            n_frames,
            self.metadata["offset"],
            self.metadata["stride"],
            None if alpha is None else alpha[:n_frames],
            ctc,
            found.logp,
        )
        symbols = [self.tokens[index] for index in found.ids]
        decode = decoder_of(self.metadata["token_type"])
        pieces = text_pieces(symbols, decode(symbols), decode)
        silent = silent_tokens(pieces, symbols)
        spans = token_spans(evidence, silent, Timing(**known["timing"]), duration)
        sound = Sound(lambda: wave, self.sampling_rate)
        spans = quiet_borders(spans, pieces, sound, evidence.stride)
        return assembled(
            found.ids,
            symbols,
            pieces,
            spans,
            duration,
            confidences(evidence, known["weights"]),
            found.score,
            flags(evidence, spans, known.get("gaps"), known["limit"]),
        )
