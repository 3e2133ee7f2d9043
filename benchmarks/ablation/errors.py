"""Counts of where errors are, from sclite's alignments.

Counts are sums over utterances, so those of several seeds may be added.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from espnet_cif_hkd.recipe.stages.sclite import Alignment, fold_case

Counts = dict[str, list[int]]

TENTHS = tuple(f"{10 * i}-{10 * (i + 1)}%" for i in range(10))
# What replaces a character; needs the readings of the characters.
SOUNDS = {
    "homophone": "a homophone: same syllable and tone",
    "tone": "same syllable, another tone",
    "sound": "another syllable",
    "deleted": "nothing (deletion)",
}
_TONE = "12345"
# Smallest number of occurrences in the training text: name of the class.
FREQUENCIES = {0: "0", 1: "1", 2: "2-4", 5: "5-19", 20: "20-99", 100: "100+"}


def by_position(alignments: Iterable[Alignment]) -> Counts:
    """Tokens and errors by tenths of the reference.

    Token ``i`` of ``n`` counts in the tenth of its middle, ``(i + 1/2) / n``. An
    insertion after ``i`` of ``n`` tokens counts at ``i / n``, after the last token in
    the last tenth, and for an empty reference in the first.

    Returns:
        For each tenth ``[reference tokens, errors]``.
    """
    rows: Counts = {name: [0, 0] for name in TENTHS}
    for found in alignments:
        passed = 0
        for ref, hyp in found.pairs:
            if ref is None:
                place = min(10 * passed // found.n_ref, 9) if found.n_ref else 0
                rows[TENTHS[place]][1] += 1
                continue
            row = rows[TENTHS[10 * (2 * passed + 1) // (2 * found.n_ref)]]
            row[0] += 1
            row[1] += _differ(ref, hyp)
            passed += 1
    return rows


def by_frequency(alignments: Iterable[Alignment], counts: Mapping[str, int]) -> Counts:
    """Substitutions and deletions by the token's frequency in the training text.

    Insertions have no reference token and are not counted.

    Args:
        alignments: of words, or of characters where the text has no words.
        counts: occurrences in the training text; 0 for missing tokens.

    Returns:
        For each class ``[reference tokens, errors]``.
    """
    rows: Counts = {name: [0, 0] for name in FREQUENCIES.values()}
    for one in alignments:
        for ref, hyp in one.pairs:
            if ref is not None:
                seen = counts.get(ref, 0)
                lowest = max(least for least in FREQUENCIES if least <= seen)
                row = rows[FREQUENCIES[lowest]]
                row[0] += 1
                row[1] += _differ(ref, hyp)
    return rows


def by_sound(
    alignment: Alignment,
    spoken: Sequence[str],
    readings: Mapping[str, Collection[str]],
) -> dict[str, int]:
    """Substitutions and deletions by whether the written character sounds the same.

    Args:
        alignment: of characters.
        spoken: the reading of each character of the reference, tone last: ``hao3``.
        readings: all known readings of each character.

    Returns:
        Errors of each class of ``SOUNDS``.

    Raises:
        ValueError: the number of readings is not that of the characters.
    """
    written = [(ref, hyp) for ref, hyp in alignment.pairs if ref is not None]
    errors = Counter(
        _sound(hyp, syllable, readings)
        for (ref, hyp), syllable in zip(written, spoken, strict=True)
        if _differ(ref, hyp)
    )
    return {kind: errors[kind] for kind in SOUNDS}


def _sound(
    hyp: str | None, syllable: str, readings: Mapping[str, Collection[str]]
) -> str:
    if hyp is None:
        return "deleted"
    others = readings.get(hyp, ())
    if syllable in others:
        return "homophone"
    without = {other.rstrip(_TONE) for other in others}
    return "tone" if syllable.rstrip(_TONE) in without else "sound"


def length_errors(lengths: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Number of utterances by length error in tokens.

    Args:
        lengths: tokens of (reference, hypothesis) of each utterance.

    Returns:
        ``hypothesis - reference`` to the number of utterances, ascending.
    """
    found = Counter(hyp - ref for ref, hyp in lengths)
    return dict(sorted(found.items()))


def _differ(ref: str, hyp: str | None) -> bool:
    return hyp is None or fold_case(ref) != fold_case(hyp)
