"""How well labels fit the units of a text, and the refusal of an LM that does not."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import Targets, Tokens
from espnet_cif_hkd.teachers.lm.labels import LMTeacher, flat_ids

_CHUNK = 1 << 14  # units in one call of the LM
# Difference of two shares of units that chance does not explain, in standard errors.
_SIGNIFICANT = 4.0
# Standard deviation of the difference of an LM's and a unigram's log-probability of one
# unit, in nats: 1.4 to 1.8 on HSK.
_SPREAD = 1.5


@dataclass(frozen=True)
class Quality:
    """Comparison of labels with the true units. Special tokens are not counted.

    Attributes:
        n_units: Number of true units.
        perplexity: Of the LM at temperature 1 among all labels.
        unigram: Perplexity of the same units if each is predicted from the counts of
            another text, or of all other units of this one, plus one for each label.
        top_1, top_k: Share of the units that are the most probable label, or one of K.
        k: K.
        before, after: Share of the units that are among the K labels of the unit before
            or after them, for labels in the wrong place.
    """

    n_units: int
    perplexity: float
    unigram: float
    top_1: float
    top_k: float
    k: int
    before: float
    after: float

    def __str__(self) -> str:
        """Return the line for the log."""
        return (
            f"perplexity {self.perplexity:.2f} (unigram {self.unigram:.2f}), top-1 "
            f"{self.top_1:.1%}, top-{self.k} {self.top_k:.1%} of {self.n_units} units"
        )


class Sample:
    """Distinct sentences that are spread evenly over a text, and the counts of it.

    Args:
        items: Unit ids of all sentences.
        n_units: About the number of units that the sample has.
        n_tokens: V, the size of the token list.

    Attributes:
        items: The sentences of the sample, none of them empty.
        counts: (V,) int64, how often each token occurs in the text.
    """

    def __init__(self, items: Iterable[Tokens], n_units: int, n_tokens: int):
        self.counts = np.zeros(n_tokens, np.int64)
        kept: dict[tuple[int, ...], None] = {}
        size, step = 0, 1
        for number, item in enumerate(items):
            if not len(item):
                continue
            ids = tuple(item)
            self.counts += np.bincount(ids, minlength=n_tokens)
            if number % step or ids in kept:
                continue
            kept[ids] = None
            size += len(ids)
            if size > 2 * n_units and len(kept) > 1:
                step *= 2
                kept = dict.fromkeys(list(kept)[::2])
                size = sum(map(len, kept))
        self.items: list[Tokens] = list(kept)


def measure(
    teacher: LMTeacher,
    sample: Sample,
    device: torch.device,
    counts: np.ndarray | None = None,
) -> tuple[Quality | None, Targets]:
    """Run the LM on a sample.

    Args:
        teacher: The LM.
        sample: Sentences of a text.
        device: Device of the LM.
        counts: (V,) int64, how often each token occurs in another text, for the
            perplexity of the unigram. None: each unit is predicted from all other units
            of the text of the sample.

    Returns:
        The quality, None if the sample has no units, and the targets of the sample.

    Raises:
        UserError: The LM fails.
    """
    found = [
        teacher.evaluate(some, device) for some in _chunks(sample.items) if len(some)
    ]
    targets = joined([some for some, _ in found])
    sizes = targets.sizes
    if not found:
        return None, targets
    units = flat_ids(sample.items)  # (R,)
    counted = np.isin(units, teacher.labels)
    if not counted.any():
        return None, targets
    ids = targets.tensors["ids"].cpu().numpy()
    hits = ids == units[:, None]  # (R, K)
    own = torch.cat([logs for _, logs in found]).double().cpu().numpy()
    # The true unit is not among the counts that predict it.
    itself = int(counts is None)
    counts = sample.counts if counts is None else counts
    frequency = (counts[units] + 1 - itself) / (
        counts[teacher.labels].sum() - itself + len(teacher.labels)
    )
    # Neighbours of a unit, within its sentence.
    sentence = np.repeat(np.arange(len(sizes)), sizes)
    same = (sentence[1:] == sentence[:-1]) & counted[1:] & counted[:-1]
    quality = Quality(
        n_units=int(counted.sum()),
        perplexity=_perplexity(own[counted]),
        unigram=_perplexity(np.log(frequency[counted])),
        top_1=float(hits[counted, 0].mean()),
        top_k=float(hits[counted].any(1).mean()),
        k=teacher.payload.width,
        before=_share((ids[:-1] == units[1:, None]).any(1)[same]),
        after=_share((ids[1:] == units[:-1, None]).any(1)[same]),
    )
    return quality, targets


def joined(parts: Sequence[Targets]) -> Targets:
    """Return the targets of all items of several lists."""
    names = parts[0].tensors if parts else ()
    return Targets(
        [size for part in parts for size in part.sizes],
        {name: torch.cat([part.tensors[name] for part in parts]) for name in names},
    )


def refuse_bad(
    name: str, quality: Quality, text: str = "the text", held_out: bool = False
) -> None:
    """Refuse an LM that is worse than unigram probabilities, or labels in wrong places.

    Args:
        name: The LM.
        quality: Of its labels.
        text: Name of the text that was measured.
        held_out: Whether the text may be so short that a good LM is worse by chance: a
            perplexity within one standard error of the unigram's is accepted.

    Raises:
        UserError: The perplexity is above the unigram's or not finite, or the labels
            fit the units before or after theirs better.
    """
    error = _SIGNIFICANT * math.sqrt(0.5 / quality.n_units)
    for share, neighbour in ((quality.before, "before"), (quality.after, "after")):
        if share > quality.top_k + error:
            raise UserError(
                f"lm {name}: its labels are in the wrong place: {quality.top_k:.1%} of "
                f"the units of {text} are among their own top-{quality.k} labels, but "
                f"{share:.1%} are among those of the unit {neighbour} them; correct "
                "the LM, which must predict unit i in row i"
            )
    by_chance = math.exp(held_out * _SPREAD / math.sqrt(quality.n_units))
    if not quality.perplexity <= quality.unigram * by_chance:
        raise UserError(
            f"lm {name}: its perplexity on {text} is {quality.perplexity:.2f}, above "
            f"the {quality.unigram:.2f} of unigram probabilities, so it knows less "
            "about this text than counts of units; train it longer or, if it overfits, "
            "on more text like this"
        )


def check_stored(
    name: str, stored: LMTeacher, sample: Sequence[Tokens], expected: Targets
) -> None:
    """Check that a store gives each unit of a sample its own labels.

    Args:
        name: The store, for messages.
        stored: Reads the store.
        sample: Sentences.
        expected: Their targets, computed by the LM.

    Raises:
        UserError: Sizes or labels differ.
    """
    found = stored.targets(sample, torch.device("cpu"))
    if found.sizes != expected.sizes:
        wrong = next(
            n for n, item in enumerate(sample) if found.sizes[n] != expected.sizes[n]
        )
        raise UserError(
            f"label_store {name}: has {found.sizes[wrong]} rows for the "
            f"{expected.sizes[wrong]} units of {stored.spell(sample[wrong])}; delete "
            "the store and dump it again"
        )
    # Equal probabilities may change their order with the other sentences of a batch.
    same = found.tensors["ids"][:, 0] == expected.tensors["ids"][:, 0].cpu()
    share = _share(same.numpy())
    if share < 0.9:
        raise UserError(
            f"label_store {name}: its most probable label is that of the LM for only "
            f"{share:.1%} of {len(same)} units; delete the store and dump it again"
        )


def _chunks(items: Sequence[Tokens]) -> list[list[Tokens]]:
    groups: list[list[Tokens]] = [[]]
    size = 0
    for item in items:
        if size + len(item) > _CHUNK and groups[-1]:
            groups.append([])
            size = 0
        groups[-1].append(item)
        size += len(item)
    return groups


def _perplexity(logs: np.ndarray) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(-logs.mean()))


def _share(hits: np.ndarray) -> float:
    return float(hits.mean()) if len(hits) else 0.0
