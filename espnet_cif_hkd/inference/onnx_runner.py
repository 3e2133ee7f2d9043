"""Recognition with an exported model: numpy and onnxruntime, without torch and ESPnet.

Shapes and names
----------------
===  =====================================================================
B    utterances
T    encoder frames, padded
L    fired tokens, padded
V    vocabulary
===  =====================================================================
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.inference.assemble import assembled, silent_tokens, text_pieces
from espnet_cif_hkd.inference.by_length import in_batches
from espnet_cif_hkd.inference.confidence import confidences
from espnet_cif_hkd.inference.evidence import Evidence
from espnet_cif_hkd.inference.gaps import flags
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.spans import Timing, token_spans
from espnet_cif_hkd.io.features import FeatureSpec

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
METADATA, TOKENS, FEATURES = "metadata.json", "tokens.txt", "features.npz"
FORMAT = 1
NEAR = ("keys", "values", "allowed")


@dataclass(frozen=True)
class Decoded:
    """Tokens of one utterance.

    Attributes:
        ids: Without ``<eos>`` and blanks.
        logp: Log-probability of each, ``(U,)``.
        score: Sum of the log-probabilities, ``<eos>`` counted.
        least: The smallest probability, ``<eos>`` counted; 1 without tokens.
    """

    ids: list[int]
    logp: Array
    score: float
    least: float


class OnnxRecognizer:
    """An exported model with greedy or one-pass search.

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
        self.metadata = _read_metadata(self.folder)
        decoders: list[str] = self.metadata["decoders"]
        self.one_pass = "step" not in decoders if one_pass is None else one_pass
        for wanted, name in ((self.one_pass, "one_pass"), (not self.one_pass, "step")):
            if wanted and name not in decoders:
                raise UserError(
                    f"{self.folder}: the exported model has no decoder {name!r}, only "
                    f"{' and '.join(decoders)}; change one_pass"
                )
        if fallback_below and not (self.one_pass and "step" in decoders):
            raise UserError(
                "fallback_below needs one_pass and a model with both decoders"
            )
        self.fallback_below, self.batch_size = fallback_below, batch_size
        self.sampling_rate = int(self.metadata["sampling_rate"])
        self.tokens = tuple(_read_tokens(self.folder / TOKENS))
        self.eos = int(self.metadata["eos"])
        self._features: FeatureSpec | None = None
        if self.metadata["input"] == "features":
            if not (self.folder / FEATURES).is_file():
                raise UserError(f"{self.folder / FEATURES} is missing: export again")
            self._features = FeatureSpec.load(self.folder / FEATURES)
        used = {"encoder"} | ({"one_pass"} if self.one_pass else {"step"})
        if fallback_below:
            used.add("step")
        self._graphs = {
            name: _session(self.folder, name, int8, threads) for name in sorted(used)
        }

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
            UserError: The type, shape or a value is wrong.
        """
        if not isinstance(samples, list | tuple):
            return self._recognise([_checked(samples, "samples")])[0]
        waves = [_checked(one, f"samples[{n}]") for n, one in enumerate(samples)]
        size = self.batch_size if self.metadata["batches"] else 1
        return in_batches(waves, size, self._recognise)

    def _recognise(self, waves: list[Array]) -> list[Recognition]:
        results = [Recognition(duration=len(w) / self.sampling_rate) for w in waves]
        least = max(1, int(self.metadata["fewest_samples"]))
        long = [n for n, wave in enumerate(waves) if len(wave) >= least]
        if long:
            encoded = self.encode([waves[n] for n in long])
            for row, (n, found) in enumerate(
                zip(long, self.decode(encoded), strict=True)
            ):
                results[n] = self._result(encoded, row, found, results[n].duration)
        return results

    def encode(self, waves: Sequence[Array]) -> Arrays:
        """Run the encoder graph on utterances, each long enough for it.

        Returns:
            Its outputs by name.
        """
        given = list(waves)
        if self._features is not None:
            given = [self._features(wave) for wave in given]
        lengths = np.array([len(one) for one in given])
        shape = (len(given), int(lengths.max()), *given[0].shape[1:])
        speech = np.zeros(shape, np.float32)
        for row, one in zip(speech, given, strict=True):
            row[: len(one)] = one
        return self._run("encoder", {"speech": speech, "lengths": lengths})

    def decode(self, encoded: Arrays) -> list[Decoded]:
        """Find the tokens of the utterances of :meth:`encode`."""
        if not self.one_pass:
            return self._greedy(encoded)
        found = self._one_pass(encoded)
        weak = [n for n, one in enumerate(found) if one.least < self.fallback_below]
        if weak:
            again = self._greedy({name: one[weak] for name, one in encoded.items()})
            for n, one in zip(weak, again, strict=True):
                found[n] = one
        return found

    def _one_pass(self, encoded: Arrays) -> list[Decoded]:
        lengths = encoded["token_lengths"]
        prefix = "nar_near_" if "nar_near_keys" in encoded else "near_"
        near = {n: encoded[prefix + n] for n in NEAR if self.metadata["one_pass_near"]}
        given = {"fired": encoded["fired"], "token_lengths": lengths}
        given |= {f"near_{name}": one for name, one in near.items()}
        logp = self._run("one_pass", given)["logp"]  # (B, L, V)
        return [
            self._decoded(rows[:length], int(length), int(limit))
            for rows, length, limit in zip(
                logp, lengths, encoded["frame_lengths"], strict=True
            )
        ]

    def _greedy(self, encoded: Arrays) -> list[Decoded]:
        lengths, fired = encoded["token_lengths"], encoded["fired"]
        limits = np.minimum(lengths, encoded["frame_lengths"])
        order = np.argsort(-limits, kind="stable")
        limits, fired = limits[order], fired[order]
        near = {
            name: encoded[f"near_{name}"][order]
            for name in NEAR
            if self.metadata["step_near"]
        }
        n_layers, size = self.metadata["layers"], fired.shape[2]
        cache = np.zeros((2, n_layers, len(order), 0, size), np.float32)
        tokens = np.full(len(order), self.eos)
        rows: list[Array] = []
        for step in range(int(limits[0])):
            n = int((limits > step).sum())
            before = fired[:n, step - 1] if step else np.zeros_like(fired[:n, 0])
            given = {
                "tokens": tokens[:n],
                "previous": before,
                "current": fired[:n, step],
                "keys": cache[0][:, :n],
                "values": cache[1][:, :n],
                **{f"near_{name}": one[:n, step] for name, one in near.items()},
            }
            found = self._run("step", given)
            cache = np.stack([found["next_keys"], found["next_values"]])
            rows.append(found["logp"])
            allowed = found["logp"].copy()
            early = step < lengths[order][:n] - 1 - self.metadata["eos_slack"]
            allowed[early, self.eos] = -np.inf
            tokens = allowed.argmax(axis=1)
        results = {}
        for row, place in enumerate(order.tolist()):
            limit = int(limits[row])
            logp = [rows[step][row] for step in range(limit)]
            stacked = np.stack(logp) if logp else np.zeros((0, len(self.tokens)))
            results[place] = self._decoded(stacked, int(lengths[place]), limit)
        return [results[place] for place in range(len(order))]

    def _decoded(self, logp: Array, length: int, limit: int) -> Decoded:
        """Choose tokens from the log-probabilities of the positions, ``(L, V)``."""
        logp = logp[:limit].astype(np.float64)
        allowed = logp.copy()
        early = np.arange(len(logp)) < length - 1 - self.metadata["eos_slack"]
        allowed[early, self.eos] = -np.inf
        tokens = allowed.argmax(axis=1)
        ends = np.flatnonzero(tokens == self.eos)
        n_tokens = int(ends[0]) if len(ends) else len(tokens)
        counted = logp[np.arange(len(tokens)), tokens][: n_tokens + 1]
        kept = np.flatnonzero(tokens[:n_tokens] != 0)
        return Decoded(
            tokens[kept].tolist(),
            counted[:n_tokens][kept],
            float(counted.sum()),
            float(np.exp(counted.min())) if len(counted) else 1.0,
        )

    def _result(
        self, encoded: Arrays, row: int, found: Decoded, duration: float
    ) -> Recognition:
        if not found.ids:
            return Recognition(duration=duration, score=found.score)
        n_frames = int(encoded["frame_lengths"][row])
        ctc = encoded["ctc"][row, :n_frames] if "ctc" in encoded else None
        known = self.metadata["calibration"]
        evidence = Evidence(
            found.ids,
            n_frames,
            self.metadata["offset"],
            self.metadata["stride"],
            encoded["alpha"][row, :n_frames],
            ctc,
            found.logp,
        )
        symbols = [self.tokens[index] for index in found.ids]
        decode = decoder_of(self.metadata["token_type"])
        pieces = text_pieces(symbols, decode(symbols), decode)
        silent = silent_tokens(pieces, symbols)
        spans = token_spans(evidence, silent, Timing(**known["timing"]), duration)
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

    def _run(self, name: str, given: Mapping[str, Array]) -> Arrays:
        graph = self._graphs[name]
        outputs = [one.name for one in graph.get_outputs()]
        return dict(zip(outputs, graph.run(None, dict(given)), strict=True))


def decoder_of(token_type: str) -> Callable[[Sequence[str]], str]:
    """Return the function that joins symbols to a text.

    Args:
        token_type: ESPnet's: ``char``, ``bpe``, ``word``, ``phn`` or
            ``hugging_face``, whose pieces may be WordPieces.

    Example:
        >>> decoder_of("char")(["a", "<space>", "b"]), decoder_of("bpe")(["▁a", "b"])
        ('a b', 'ab')
    """
    if token_type == "char":
        return lambda symbols: "".join(
            " " if one == "<space>" else one for one in symbols
        )
    if token_type == "bpe":
        return lambda symbols: "".join(symbols).replace("▁", " ").strip()
    if token_type == "hugging_face":
        return lambda symbols: " ".join(symbols).replace(" ##", "")
    return " ".join


def _read_metadata(folder: Path) -> dict[str, Any]:
    path = folder / METADATA
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is no exported model ({METADATA}: {type(error).__name__}): give "
            "the folder that python3 -m espnet_cif_hkd.cli.export made"
        ) from error
    if known != FORMAT:
        raise UserError(
            f"{path} has format {known}, this version reads {FORMAT}: export the model "
            "again, or install the version that made it"
        )
    return dict(found)


def _read_tokens(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: export again") from error
    return [line.rpartition(" ")[0] for line in lines if line]


def _session(folder: Path, name: str, int8: bool, threads: int) -> Any:
    path = folder / f"{name}{'.int8' if int8 else ''}.onnx"
    if not path.is_file():
        raise UserError(
            f"{path} is missing: export again{' with --int8' if int8 else ''}"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"exported models need onnxruntime: pip install onnxruntime ({error})"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        reason = one_line(error, 200)
        raise UserError(f"{path} cannot be loaded ({reason}): export again") from error


def _checked(samples: Any, name: str) -> Array:
    """Samples as float32 in [-1, 1], ``(S,)``."""
    found = np.asarray(samples)
    if found.dtype == np.int16:
        found = found / 32768.0
    elif not np.issubdtype(found.dtype, np.floating):
        raise UserError(
            f"{name} has dtype {found.dtype}: give float samples in [-1, 1], or int16"
        )
    if found.ndim == 2 and 1 in found.shape:
        found = found.reshape(-1)
    if found.ndim != 1:
        raise UserError(
            f"{name} has shape {found.shape}: give one channel as (samples,)"
        )
    if not np.isfinite(found).all():
        raise UserError(f"{name} holds NaN or infinity; repair the audio")
    return found.astype(np.float32)
