"""Where errors fall, counted on sclite's alignments: what ``collect.py`` puts in cells.

Counts add up over utterances, so those of several seeds may be added.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from espnet_cif_hkd.recipe.stages.sclite import Alignment, fold_case

Counts = dict[str, list[int]]

TENTHS = tuple(f"{10 * i}-{10 * (i + 1)}%" for i in range(10))
# What stands instead of a character, where the readings of characters are known.
SOUNDS = {
    "homophone": "a character of the same syllable and tone",
    "tone": "one of the same syllable in another tone",
    "sound": "one of another syllable",
    "deleted": "nothing",
}
_TONE = "12345"
# Lowest number of occurrences in the training text: name of the class.
FREQUENCIES = {0: "0", 1: "1", 2: "2-4", 5: "5-19", 20: "20-99", 100: "100+"}


def by_position(alignments: Iterable[Alignment]) -> Counts:
    """Tokens and errors by tenths of the reference.

    Token ``i`` of ``n`` is in the tenth of its middle, ``(i + 1/2) / n``. An insertion
    counts where it stands: behind ``i`` tokens of ``n`` at ``i / n``, behind all of
    them in the last tenth, beside an empty reference in the first.

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
    """Substitutions and deletions by how often the training text has the token.

    Insertions have no reference and are not in it.

    Args:
        alignments: of words, or of characters where text has no words.
        counts: occurrences in the training text; what is not in it has none.

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


def by_frequency_utterances(
    alignments: Mapping[str, Alignment], counts: Mapping[str, int]
) -> dict[str, Counts]:
    """:func:`by_frequency` of each utterance, for intervals over utterances.

    Returns:
        By id the classes that the reference has.
    """
    found = {}
    for utt, one in alignments.items():
        rows = by_frequency([one], counts)
        found[utt] = {name: row for name, row in rows.items() if row[0]}
    return found


def by_sound_utterances(
    alignments: Mapping[str, Alignment],
    spoken: Mapping[str, Sequence[str]],
    readings: Mapping[str, Collection[str]],
) -> dict[str, Counts]:
    """Substitutions and deletions by whether what is written sounds the same.

    Args:
        alignments: of characters, by id.
        spoken: by id the reading of each character of the reference, tone last:
            ``hao3``.
        readings: all known readings of each character.

    Returns:
        By id, for each class of ``SOUNDS`` ``[all reference characters, errors]``.

    Raises:
        ValueError: a sentence has other than one reading a character; it names the
            utterance.
    """
    found = {}
    for utt, one in alignments.items():
        syllables = spoken[utt]
        written = [pair for pair in one.pairs if pair[0] is not None]
        if len(written) != len(syllables):
            raise ValueError(f"{utt}: {len(written)} characters, {len(syllables)} read")
        errors = Counter(
            _sound(hyp, syllable, readings)
            for (ref, hyp), syllable in zip(written, syllables)
            if _differ(ref or "", hyp)
        )
        found[utt] = {kind: [len(written), errors[kind]] for kind in SOUNDS}
    return found


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


def summed(rows: Iterable[Counts]) -> Counts:
    """Counts of many utterances as one."""
    total: Counts = {}
    for row in rows:
        for name, (tokens, wrong) in row.items():
            have = total.setdefault(name, [0, 0])
            have[0] += tokens
            have[1] += wrong
    return total


def length_errors(lengths: Iterable[tuple[int, int]]) -> dict[int, int]:
    """How many utterances are too short or too long, by how many tokens.

    Args:
        lengths: tokens of (reference, hypothesis) of each utterance.

    Returns:
        ``hypothesis - reference`` to the number of utterances, ascending.
    """
    found = Counter(hyp - ref for ref, hyp in lengths)
    return dict(sorted(found.items()))


def _differ(ref: str, hyp: str | None) -> bool:
    return hyp is None or fold_case(ref) != fold_case(hyp)
