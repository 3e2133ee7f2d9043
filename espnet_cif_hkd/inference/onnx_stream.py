"""Recognition of a stream with an exported model, without torch and ESPnet.

Shapes: S samples, T encoder frames, D size of a frame, N hypotheses, K frames around a
firing, Y layers of the decoder, P earlier tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from espnet_cif_hkd.inference.evidence import Floats
from espnet_cif_hkd.inference.growing_stream import (
    GrowingStream,
    StreamOptions,
    StreamText,
)
from espnet_cif_hkd.inference.numpy_firing import NumpyFiring, NumpyFrames
from espnet_cif_hkd.inference.onnx_folder import (
    NEAR,
    Array,
    Arrays,
    Graphs,
    checked,
    decoder_of,
)
from espnet_cif_hkd.inference.passage_stream import Fired, PassageStream
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.spans import Timing
from espnet_cif_hkd.search.stepwise import Steps, StepwiseSearch

# A fired vector, (D,), and the frames around its firing.
_Vector = tuple[Array, Arrays]


class ChunkSamples:
    """Cuts a stream of samples into those of the encoder's chunks.

    Chunks overlap. The ends of the audio are mirrored, as the frontend does.

    Args:
        hop: Samples from one feature frame to the next.
        reach: Samples of a feature frame.
        pad: Samples that are mirrored at both ends.
        span: Feature frames from one chunk to the next.
        needed: Feature frames of a chunk.
        fewest: Feature frames that the last chunk needs.

    Attributes:
        n_samples: Samples received.
    """

    def __init__(
        self, hop: int, reach: int, pad: int, span: int, needed: int, fewest: int
    ) -> None:
        self._hop, self._reach, self._pad = hop, reach, pad
        self._span, self._needed, self._fewest = span * hop, needed, fewest
        self.n_samples = 0
        self._samples: Array = np.zeros(0, np.float32)
        self._newest = self._samples  # for the mirror at the end
        self._begin = 0  # place of the first kept sample after the mirror
        self._start = 0  # of the next chunk

    @property
    def state_bytes(self) -> int:
        return self._samples.nbytes + self._newest.nbytes

    def push(self, samples: Array, last: bool) -> Iterator[Array]:
        """Add samples ``(S,)``; yield those of each chunk that is complete."""
        was_short = self.n_samples <= self._pad
        self.n_samples += len(samples)
        self._newest = np.append(self._newest, samples)[-self._pad - 1 :]
        parts = [self._samples, samples]
        if self.n_samples <= self._pad:  # too short to be mirrored
            self._samples = np.concatenate(parts)
            return
        if was_short:
            parts = [np.concatenate(parts)]
            parts.insert(0, parts[0][self._pad : 0 : -1])
        if last:
            parts.append(self._newest[:-1][::-1])
        self._samples = np.concatenate(parts)
        while True:
            first = self._start - self._begin
            count = (len(self._samples) - first - self._reach) // self._hop + 1
            if count < (self._fewest if last else self._needed):
                break
            n_samples = (min(count, self._needed) - 1) * self._hop + self._reach
            yield self._samples[first : first + n_samples]
            self._start += self._span
        dropped = min(len(self._samples), self._start - self._begin)
        self._samples = self._samples[dropped:].copy()
        self._begin += dropped


class _OnnxSteps(Steps[_Vector]):
    """The steps of an exported decoder."""

    def __init__(self, graphs: Graphs, metadata: Mapping[str, Any]) -> None:
        self.sos = self.eos = int(metadata["eos"])
        self.eos_slack = int(metadata["eos_slack"])
        self._run = graphs.run
        size = int(metadata["streaming"]["size"])
        self._previous: Array = np.zeros(size, np.float32)
        keys: Array = np.zeros((metadata["layers"], 1, 0, size), np.float32)
        self._state = {"keys": keys, "values": keys}  # (Y, N, P, D)

    def extend(self, tokens: Array, step: int, current: _Vector) -> Array:
        vectors = {"previous": self._previous, "current": current[0], **current[1]}
        found = self._run(
            "step",
            {
                "tokens": tokens.astype(np.int64),
                **{k: np.repeat(v[None], len(tokens), 0) for k, v in vectors.items()},
                **self._state,
            },
        )
        self._state = {name: found[f"next_{name}"] for name in self._state}
        return found["logp"]

    def keep(self, parents: Array, current: _Vector) -> None:
        self._previous = current[0]
        if parents.tolist() != list(range(self._state["keys"].shape[1])):
            self._state = {k: v[:, parents] for k, v in self._state.items()}

    def state_bytes(self, waiting: list[_Vector]) -> int:
        arrays = [self._previous, *self._state.values()]
        for vector, near in waiting:
            arrays += [vector, *near.values()]
        return sum(one.nbytes for one in arrays)


class OnnxStream(GrowingStream):
    """Recognises one stream with an exported model.

    As :class:`espnet_cif_hkd.inference.stream.RecognitionStream`: tokens that a result
    has are in all later ones, with the same times, and do not depend on the pieces.

    Args:
        graphs: ``chunk``, ``weights`` and ``step``.
        metadata: Of a model that was exported with ``--streaming``.
        symbols: The token list.
        options: Of the search.

    Attributes:
        alpha: Weights of the frames of the last call, ``(T,)`` float64.

    Raises:
        UserError: An option is wrong.
    """

    def __init__(
        self,
        graphs: Graphs,
        metadata: Mapping[str, Any],
        symbols: Sequence[str],
        options: StreamOptions | None = None,
    ) -> None:
        known = metadata["streaming"]
        text = StreamText(
            symbols,
            decoder_of(metadata["token_type"]),
            metadata["offset"],
            metadata["stride"],
            Timing(**known["timing"]),
        )
        super().__init__(text, options)
        self._graphs, self._metadata = graphs, metadata
        self._rate = int(metadata["sampling_rate"])
        self._chunks = ChunkSamples(**known["chunks"])
        self._caches = graphs.empty("chunk", "cache_")
        self._left, self._right = int(known["left"]), int(known["right"])
        size = int(known["size"])
        self._frames: Array = np.zeros((self._left, size), np.float32)
        self._firing = NumpyFiring(size, known["tail_threshold"])
        self._near: NumpyFrames | None = None
        if known["window"]:
            self._near = NumpyFrames(int(known["window"]), size)
        self._passages = PassageStream(self._firing, self._near, self._limits)
        self._search = self._new_search()
        self.alpha: Floats = np.zeros(0)

    def accept(self, samples: Array) -> Recognition:
        """Add samples and return what is recognised so far.

        Args:
            samples: The next samples ``(S,)`` at the model's rate, float in [-1, 1] or
                int16; any number.

        Raises:
            UserError: The samples are wrong, or the stream has ended.
        """
        return self._advance(checked(samples, "samples"), last=False)

    def finish(self) -> Recognition:
        """End the stream and return the complete result.

        Raises:
            UserError: The stream has ended already.
        """
        return self._advance(np.zeros(0, np.float32), last=True)

    @property
    def state_bytes(self) -> int:
        """Bytes of the stream's arrays; results and the model not counted."""
        arrays = [*self._caches.values(), self._frames, self._firing.partial]
        near = 0 if self._near is None else self._near.state_bytes
        total = self._chunks.state_bytes + near + self._search.state_bytes
        return total + sum(one.nbytes for one in arrays)

    def _advance(self, wave: Array, last: bool) -> Recognition:
        self._begin(last)
        hidden = [self._encode(one) for one in self._chunks.push(wave, last)]
        duration = self._chunks.n_samples / self._rate
        self.alpha = np.zeros(0)
        if hidden or last:
            hs = self._weigh(np.concatenate([self._frames, *hidden]), last)
            self._extend(self._passages.integrate(hs, self.alpha, last), duration)
        return self._result(duration)

    def _encode(self, samples: Array) -> Array:
        """Encoder frames of a chunk, ``(T, D)``."""
        found = self._graphs.run("chunk", {"speech": samples[None], **self._caches})
        self._caches = {name: found[f"next_{name}"] for name in self._caches}
        if self._near is not None:
            self._near.add(found["near_keys"][0], found["near_values"][0])
        frames: Array = found["frames"][0]
        return frames

    def _weigh(self, hs: Array, last: bool) -> Array:
        """The frames that have a weight now; they follow ``left`` earlier ones."""
        if last:
            hs = np.pad(hs, ((0, self._right), (0, 0)))
        n_ready = max(0, len(hs) - self._left - self._right)
        if n_ready:
            found = self._graphs.run("weights", {"frames": hs[None]})["alpha"]
            self.alpha = found[0].astype(np.float64)
        self._frames = hs[n_ready:]
        return hs[self._left : self._left + n_ready]

    def _new_search(self) -> StepwiseSearch[Any]:
        steps = _OnnxSteps(self._graphs, self._metadata)
        return StepwiseSearch(steps, self.options.beam_size)

    def _waiting(self, fired: Fired) -> list[_Vector]:
        near = fired.near or {}
        return [
            (vector, {f"near_{name}": near[name][n] for name in NEAR if near})
            for n, vector in enumerate(fired.vectors)
        ]
