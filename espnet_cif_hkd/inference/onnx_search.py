"""Search with the graphs of an exported model, for batches of utterances.

This module needs neither torch nor ESPnet. Shapes and names: B utterances, T encoder
frames, L fired tokens, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.onnx_folder import NEAR, Array, Arrays, Graphs


@dataclass(frozen=True)
class Decoded:
    """Tokens of one utterance.

    Attributes:
        ids: Without ``<eos>`` and blanks.
        logp: Log-probability of each, ``(U,)``.
        score: Sum of the log-probabilities, ``<eos>`` counted.
        least: The smallest probability, ``<eos>`` counted; 1 without tokens.
        length: Number of tokens, blanks counted.
        weights: The weights that fired, ``(T,)``, padded, if their number was chosen.
    """

    ids: list[int]
    logp: Array
    score: float
    least: float
    length: int
    weights: Array | None = None


class Steps:
    """Inputs of the graph ``step`` beside the tokens, for utterances in some order.

    Args:
        cache: Keys and values before the first token, ``(layers, B, P, D)`` by name.
        each: What each step reads of its own, ``(B, L, ...)`` by name.
        memory: What all steps read, ``(layers, B, ...)`` by name.
        order: The utterances, ``(B,)`` int.
    """

    def __init__(
        self, cache: Arrays, each: Arrays, memory: Arrays, order: Array
    ) -> None:
        self._each = {name: one[order] for name, one in each.items()}
        self._cache, self._memory = (
            {name: one[:, order] for name, one in given.items()}
            for given in (cache, memory)
        )

    def inputs(self, step: int, count: int) -> Arrays:
        """Return the inputs of a step for the first utterances."""
        found = {name: one[:count, step] for name, one in self._each.items()}
        shared = self._cache | self._memory
        return found | {name: one[:, :count] for name, one in shared.items()}

    def keep(self, found: Arrays) -> None:
        """Keep the keys and values that a step returned."""
        self._cache = {name: found[f"next_{name}"] for name in self._cache}


class OnnxSearch:
    """The searches of :class:`OnnxRecognizer`.

    Args:
        graphs: With those of the decoders.
        metadata: Of the model.
    """

    def __init__(self, graphs: Graphs, metadata: dict[str, Any]) -> None:
        self._graphs, self._run, self._metadata = graphs, graphs.run, metadata

    def one_pass(self, encoded: Arrays) -> list[Decoded]:
        """Find all tokens of an utterance in one pass."""
        lengths = encoded["token_lengths"]
        prefix = "nar_near_" if "nar_near_keys" in encoded else "near_"
        near = {n: encoded[prefix + n] for n in NEAR if self._metadata["one_pass_near"]}
        given = {"fired": encoded["fired"], "token_lengths": lengths}
        given |= {f"near_{name}": one for name, one in near.items()}
        logp = self._run("one_pass", given)["logp"]  # (B, L, V)
        return [
            self._decoded(rows[:length], int(length), int(limit))
            for rows, length, limit in zip(
                logp, lengths, encoded["frame_lengths"], strict=True
            )
        ]

    def greedy(self, encoded: Arrays) -> list[Decoded]:
        """Choose the most likely token at each step.

        Raises:
            UserError: An utterance has more tokens than the decoder reads.
        """
        lengths = encoded["token_lengths"]
        limits = np.minimum(lengths, encoded["frame_lengths"])
        longest = self._metadata.get("longest_text")
        if longest is not None and limits.max() > longest:
            raise UserError(
                f"the decoder reads at most {longest} tokens, an utterance has "
                f"{limits.max()}: divide it"
            )
        order = np.argsort(-limits, kind="stable")
        limits, steps = limits[order], self.steps(encoded, order)
        tokens = np.full(len(order), self._metadata["eos"])
        rows: list[Array] = []
        for step in range(int(limits[0])):
            n = int((limits > step).sum())
            found = self._run("step", {"tokens": tokens[:n], **steps.inputs(step, n)})
            steps.keep(found)
            rows.append(found["logp"])
            allowed = found["logp"].copy()
            early = step < lengths[order][:n] - 1 - self._metadata["eos_slack"]
            allowed[early, self._metadata["eos"]] = -np.inf
            tokens = allowed.argmax(axis=1)
        results = {}
        for row, place in enumerate(order.tolist()):
            limit = int(limits[row])
            logp = [rows[step][row] for step in range(limit)]
            stacked = (
                np.stack(logp) if logp else np.zeros((0, self._metadata["vocab_size"]))
            )
            results[place] = self._decoded(stacked, int(lengths[place]), limit)
        return [results[place] for place in range(len(order))]

    def steps(self, encoded: Arrays, order: Array) -> Steps:
        """Prepare the inputs of the graph ``step``.

        Args:
            encoded: Outputs of ``encoder``.
            order: Utterances, ``(B,)`` int.
        """
        fired = encoded["fired"]
        if "whisper" in self._metadata["decoders"]:
            names = "fired", "token_lengths", "frames", "frame_lengths", "times"
            memory = self._run("memory", {name: encoded[name] for name in names})
            each = {"current": fired, "allowed": memory.pop("allowed")}
            n_layers, n_batch, _, size = memory["memory_keys"].shape
            empty = np.zeros((n_layers, n_batch, 0, size), np.float32)
            steps = Steps({"keys": empty, "values": empty}, each, memory, order)
            tokens = np.zeros(n_batch, np.int64)
            for _ in range(self._metadata["prompt"]):
                steps.keep(
                    self._run("step", {"tokens": tokens, **steps.inputs(0, n_batch)})
                )
            return steps
        shape = self._metadata["layers"], len(fired), 0, fired.shape[2]
        cache = {name: np.zeros(shape, np.float32) for name in ("keys", "values")}
        before = np.concatenate([np.zeros_like(fired[:, :1]), fired[:, :-1]], axis=1)
        each = {"previous": before, "current": fired}
        if self._metadata["step_near"]:
            each |= {f"near_{name}": encoded[f"near_{name}"] for name in NEAR}
        return Steps(cache, each, {}, order)

    def transducer(self, encoded: Arrays) -> list[Decoded]:
        """Emit the most likely token at each frame, unless it is the blank."""
        n_frames, projected = encoded["frame_lengths"], encoded["projected"]
        order = np.argsort(-n_frames, kind="stable")
        blank = int(self._metadata["blank"])
        states: Arrays = {
            name: np.zeros((len(one), len(order), one.shape[2]), np.float32)
            for name, one in self._graphs.empty("predict", "state_").items()
        }
        found = self._run("predict", {"tokens": np.full(len(order), blank), **states})
        predicted = found["predicted"].copy()
        states = {name: found[f"next_{name}"].copy() for name in states}
        ids: list[list[int]] = [[] for _ in order]
        logps: list[list[float]] = [[] for _ in order]
        for frame in range(int(n_frames[order[0]])):
            n = int((n_frames > frame).sum())
            given = {"frames": projected[order[:n], frame], "predicted": predicted[:n]}
            logp = self._run("joint", given)["logp"]  # (n, V)
            tokens = logp.argmax(axis=1)
            rows = np.flatnonzero(tokens != blank)
            if not len(rows):
                continue
            for row in rows.tolist():
                ids[order[row]].append(int(tokens[row]))
                logps[order[row]].append(float(logp[row, tokens[row]]))
            before = {name: one[:, rows] for name, one in states.items()}
            found = self._run("predict", {"tokens": tokens[rows], **before})
            predicted[rows] = found["predicted"]
            for name, one in states.items():
                one[:, rows] = found[f"next_{name}"]
        return [
            Decoded(
                one,
                np.array(each),
                sum(each),
                float(np.exp(min(each, default=0))),
                len(one),
            )
            for one, each in zip(ids, logps, strict=True)
        ]

    def _decoded(self, logp: Array, length: int, limit: int) -> Decoded:
        """Choose tokens from the log-probabilities of the positions, ``(L, V)``."""
        logp = logp[:limit].astype(np.float64)
        allowed = logp.copy()
        early = np.arange(len(logp)) < length - 1 - self._metadata["eos_slack"]
        allowed[early, self._metadata["eos"]] = -np.inf
        tokens = allowed.argmax(axis=1)
        ends = np.flatnonzero(tokens == self._metadata["eos"])
        n_tokens = int(ends[0]) if len(ends) else len(tokens)
        counted = logp[np.arange(len(tokens)), tokens][: n_tokens + 1]
        kept = np.flatnonzero(tokens[:n_tokens] != 0)
        return Decoded(
            tokens[kept].tolist(),
            counted[:n_tokens][kept],
            float(counted.sum()),
            float(np.exp(counted.min())) if len(counted) else 1.0,
            n_tokens,
        )
