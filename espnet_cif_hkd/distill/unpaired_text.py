"""Sentences of a text file without speech, for the criterion ``text_only``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import read_text
from espnet_cif_hkd.teachers.lm.lexicon import UNKNOWN
from espnet_cif_hkd.teachers.lm.units import build_unit
from espnet_cif_hkd.teachers.text.spelling import infer_token_type


@dataclass
class UnpairedText:
    """Token ids of the sentences that a training reads.

    Attributes:
        ids: All sentences one after the other, (N,) int32, without ``<eos>``.
        ends: End of each sentence in ``ids``, (S,) int64.
        left_out: Number of other sentences by reason.
    """

    ids: np.ndarray
    ends: np.ndarray
    left_out: dict[str, int]
    _orders: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.ends)

    def sentence(self, place: int) -> list[int]:
        """Return the token ids of a sentence."""
        begin = self.ends[place - 1] if place else 0
        found: list[int] = self.ids[begin : self.ends[place]].tolist()
        return found

    def sequences(self) -> Iterator[list[int]]:
        """Yield the token ids of all sentences."""
        return map(self.sentence, range(len(self)))

    def draw(self, first: int, count: int, seed: int) -> list[list[int]]:
        """Return sentences of an endless series: pass after pass, each in a new order.

        Args:
            first: Place of the first sentence in the series.
            count: Number of sentences.
            seed: Determines the orders.
        """
        found = []
        for place in range(first, first + count):
            number, row = divmod(place, len(self))
            order = self._orders.get((seed, number))
            if order is None:
                order = np.random.default_rng([seed, number]).permutation(len(self))
                self._orders = {(seed, number): order}
            found.append(self.sentence(order[row]))
        return found

    def describe(self) -> str:
        """Return the numbers of sentences in words."""
        reasons = ", ".join(f"{n} {reason}" for reason, n in self.left_out.items() if n)
        return f"{len(self)} sentences, {len(self.ids)} tokens" + (
            f"; left out: {reasons}" if reasons else ""
        )


def read_unpaired_text(
    path: str,
    token_list: Sequence[str],
    token_type: str | None = None,
    bpemodel: str | None = None,
    max_length: int = 200,
) -> UnpairedText:
    """Read a Kaldi text file, and divide its sentences into tokens.

    Args:
        path: The file; each line has a name, then the words as in transcripts.
        token_list: Tokens of the recogniser.
        token_type: ``char``, ``bpe`` or ``word``; None infers it.
        bpemodel: The recogniser's sentencepiece model, for ``bpe``.
        max_length: Largest number of tokens of a sentence.

    Returns:
        The sentences. Empty sentences, longer ones, and those with ``<unk>`` are left
        out and counted.

    Raises:
        UserError: The file is missing or wrong, the tokens cannot be made, or no
            sentence is left.
    """
    kind = token_type or infer_token_type(token_list)
    if kind not in ("char", "bpe", "word"):
        raise UserError(
            f"criterion_conf.token_type: text of {kind} tokens cannot be divided; use "
            "a recogniser of char, bpe or word tokens"
        )
    if kind == "bpe" and not (bpemodel and Path(bpemodel).is_file()):
        reason = f"{bpemodel}: this file does not exist" if bpemodel else "is not set"
        raise UserError(
            f"criterion_conf.bpemodel {reason}: name the recogniser's sentencepiece "
            "model"
        )
    unit = build_unit({"unit": "token", "unit_bpemodel": bpemodel}, token_list, kind)
    if UNKNOWN not in token_list:
        raise UserError(f"the token list has no {UNKNOWN}; name ESPnet's tokens.txt")
    unknown = token_list.index(UNKNOWN)
    try:
        texts = read_text(path, "criterion_conf.text names no file")
    except UserError as error:
        raise UserError(f"{error} (each line: a name, then the words)") from error
    left_out = {"empty": 0, f"above {max_length} tokens": 0, f"with {UNKNOWN}": 0}
    empty, long, strange = left_out
    kept = []
    for words in texts.values():
        ids = np.array(unit.encode(words), dtype=np.int32)
        if not len(ids):
            left_out[empty] += 1
        elif len(ids) > max_length:
            left_out[long] += 1
        elif (ids == unknown).any():
            left_out[strange] += 1
        else:
            kept.append(ids)
    if not kept:
        raise UserError(
            f"criterion_conf.text {path} has no sentence to learn from: of "
            f"{len(texts)} lines, {left_out[empty]} are empty, {left_out[long]} have "
            f"{long}, {left_out[strange]} have tokens outside the token list; write "
            "it as the transcripts are written"
        )
    ends = np.cumsum([len(ids) for ids in kept], dtype=np.int64)
    return UnpairedText(np.concatenate(kept), ends, left_out)
