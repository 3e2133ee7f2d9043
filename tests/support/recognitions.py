"""Results made by hand or by Hypothesis, without a model."""

from collections.abc import Sequence

from hypothesis import strategies as st

from espnet_cif_hkd.inference.recognition import Recognition, Segment, Token, Word


def recognition(
    words: Sequence[tuple[str, float, float]],
    spaces: bool = True,
    duration: float | None = None,
    pause: float = 0.6,
    confidence: float | None = 0.5,
) -> Recognition:
    """A result with one token a word, and a segment between pauses.

    Args:
        words: (text, start, end) of each.
        spaces: Separate words by spaces.
        duration: Of the audio in seconds; default: the end of the last word.
        pause: Seconds between words that end a segment.
        confidence: Of all words.
    """
    tokens, made, segments = [], [], []
    begin = 0
    for i, (text, start, end) in enumerate(words):
        piece = f" {text}" if spaces and i else text
        tokens.append(Token(piece, text, i + 2, start, end, confidence))
        made.append(Word(text, start, end, confidence, i, i + 1))
        if i + 1 == len(words) or words[i + 1][1] - end > pause:
            joined = "".join(token.text for token in tokens[begin:]).strip()
            times = made[begin].start, end
            segments.append(Segment(joined, *times, confidence, begin, i + 1))
            begin = i + 1
    if duration is None:
        duration = words[-1][2] if words else 0.0
    return Recognition(
        "".join(token.text for token in tokens),
        tuple(tokens),
        tuple(made),
        tuple(segments),
        duration,
        score=-1.25,
    ).validate()


def english(sentence: str, seconds: float = 0.3, start: float = 0.0) -> Recognition:
    """Words of equal length without pauses."""
    words = sentence.split()
    times = [start + i * seconds for i in range(len(words) + 1)]
    return recognition([(w, times[i], times[i + 1]) for i, w in enumerate(words)])


LETTERS = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=9)
LATIN = st.text("abcdefghijklmnopqrstuvwxyz,.'?", min_size=1, max_size=60)
CHINESE = st.sampled_from("天地玄黃宇宙洪荒，。")


def recognitions(
    words: st.SearchStrategy[str] = LETTERS,
    spaces: bool = True,
    most: int = 25,
    longest: int = 3000,
) -> st.SearchStrategy[Recognition]:
    """Words of 10 ms to ``longest`` ms with pauses of up to 5 s between some."""

    def build(parts: list[tuple[str, int, int]], tail: int) -> Recognition:
        at, made = 0, []
        for text, pause, length in parts:
            at += pause
            made.append((text, at / 1000, (at + length) / 1000))
            at += length
        return recognition(made, spaces, (at + tail) / 1000)

    pauses = st.sampled_from([0, 0, 0, 40, 300, 700, 1500, 5000])
    part = st.tuples(words, pauses, st.integers(10, longest))
    return st.builds(
        build, st.lists(part, max_size=most), st.sampled_from([0, 100, 2000])
    )
