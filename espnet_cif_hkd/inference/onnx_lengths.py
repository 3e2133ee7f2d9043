"""The number of tokens of an exported model, chosen by its decoder.

As :mod:`espnet_cif_hkd.search.lengths`, in numpy. Shapes and names: R candidates of all
utterances, T encoder frames, K other numbers of tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from espnet_cif_hkd.inference.onnx_folder import Array, Arrays, Graphs
from espnet_cif_hkd.inference.onnx_search import Decoded
from espnet_cif_hkd.search.length_score import length_score

Search = Callable[[Arrays], list[Decoded]]
# At most so many candidates are searched together.
_TOGETHER = 16


class OnnxLengths:
    """Searches with a few more and a few fewer tokens; the likeliest sentence wins.

    Args:
        graphs: With ``fire``.
        slack, bonus: Of :class:`espnet_cif_hkd.search.lengths.LengthSearch`.
    """

    def __init__(self, graphs: Graphs, slack: int, bonus: float | None) -> None:
        self._graphs, self.slack, self.bonus = graphs, slack, bonus

    def best(self, encoded: Arrays, search: Search) -> list[Decoded]:
        """Return the best candidate of each utterance, with its weights.

        Args:
            encoded: Outputs of ``encoder``.
            search: Finds the tokens of what fired.
        """
        owners, weights = self._candidates(encoded)
        found: list[list[Decoded]] = [[] for _ in encoded["alpha"]]
        for first in range(0, len(owners), _TOGETHER):
            rows = owners[first : first + _TOGETHER]
            some = weights[first : first + _TOGETHER]
            given = {name: encoded[name][rows] for name in ("frames", "frame_lengths")}
            fired = self._graphs.run("fire", {**given, "weights": some})
            each = search(given | fired)
            for owner, one, used in zip(rows.tolist(), each, some, strict=True):
                if one.length or not found[owner]:
                    found[owner].append(replace(one, weights=used))
        return [self._choose(each) for each in found]

    def _choose(self, candidates: Sequence[Decoded]) -> Decoded:
        scores = [length_score(one.score, one.length, self.bonus) for one in candidates]
        return candidates[scores.index(max(scores))]

    def _candidates(self, encoded: Arrays) -> tuple[Array, Array]:
        """Utterance of each candidate ``(R,)`` and its weights ``(R, T)``.

        The first one of an utterance is what fires by itself; the others follow by
        distance.
        """
        frames, counts = encoded["frame_lengths"], encoded["token_lengths"]
        alpha = encoded["alpha"].astype(np.float64)
        alpha[np.arange(alpha.shape[1]) >= frames[:, None]] = 0.0
        if "other_weights" in encoded:
            others, numbers = encoded["other_weights"], encoded["other_lengths"]
        else:
            steps = np.arange(1, self.slack + 1)
            changes = np.stack([-steps, steps], axis=1).reshape(-1)
            numbers = counts[:, None] + changes
            numbers[numbers > frames[:, None]] = 0
            numbers[counts == 0] = 0
            total = alpha.sum(axis=1)
            scale = numbers / np.where(total > 0, total, 1.0)[:, None]
            others = alpha[:, None] * scale[..., None]
        owners, weights = [], []
        for owner, count in enumerate(counts.tolist()):
            chosen = {count: alpha[owner]}
            change = np.abs(numbers[owner] - count)
            for place in np.argsort(change, kind="stable").tolist():
                number = int(numbers[owner, place])
                if number > 0 and change[place] <= self.slack:
                    chosen.setdefault(number, others[owner, place])
            owners += [owner] * len(chosen)
            weights += list(chosen.values())
        return np.array(owners), np.stack(weights)
