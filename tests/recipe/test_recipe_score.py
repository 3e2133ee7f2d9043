"""Scores equal sclite's, and no utterance gets lost on the way to them."""

import random
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from rapidfuzz.distance import Levenshtein

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe.stages.report import (
    ScoredUtterance,
    result_text,
    results_md,
    sums,
)
from espnet_cif_hkd.recipe.stages.sclite import align
from espnet_cif_hkd.recipe.stages.score import paired_texts

# Pairs whose cheapest alignments differ in the number of errors, with the counts
# (correct, substituted, deleted, inserted) that sclite 2.10 gives.
TIES = [
    ("a a b b a b b", "b b a b a a b a", (4, 3, 0, 1)),
    ("b b b b a a a b", "a b b a b b b", (4, 3, 1, 0)),
    ("b a b c c b d c c", "b b c c c a a a", (4, 4, 1, 0)),
    ("d b c b c b d b a a", "b c c d c c d", (4, 3, 3, 0)),
    ("n q h t", "n t k r r j m g k g n i r", (1, 3, 0, 9)),
    ("e c e e g b a g g b b h h d", "e b b b c a e g a d", (5, 4, 5, 1)),
]


def counts(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[int, ...]:
    found = align(reference, hypothesis)
    return (found.correct, found.substituted, found.deleted, found.inserted)


@pytest.mark.parametrize(("reference", "hypothesis", "expected"), TIES)
def test_ties_are_broken_as_sclite_breaks_them(
    reference: str, hypothesis: str, expected: tuple[int, ...]
) -> None:
    assert counts(reference.split(), hypothesis.split()) == expected


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("", "", (0, 0, 0, 0)),
        ("a b", "", (0, 0, 2, 0)),
        ("", "a b", (0, 0, 0, 2)),
        ("The Cat", "the cAT", (2, 0, 0, 0)),
        ("É", "é", (0, 1, 0, 0)),
        ("a @ b", "a b", (2, 0, 0, 0)),
    ],
)
def test_empty_sides_case_and_null_words(
    reference: str, hypothesis: str, expected: tuple[int, ...]
) -> None:
    assert counts(reference.split(), hypothesis.split()) == expected


def test_case_counts_when_asked() -> None:
    assert align(["A"], ["a"], fold=False).substituted == 1


@pytest.mark.parametrize(("fold", "wrong"), [(True, 1), (False, 2)])
def test_the_marks_of_result_txt_are_those_of_the_counts(
    fold: bool, wrong: int
) -> None:
    found = align(["The", "a", "É", "x"], ["the", "a", "é"], fold=fold)
    text = result_text([ScoredUtterance("s", "u", found)], "x")
    (line,) = [line for line in text.splitlines() if line.startswith("Eval: ")]
    marks = line.removeprefix("Eval: ").split()
    assert sorted(marks) == ["D", *"S" * wrong]
    assert f"(#C #S #D #I) {3 - wrong} {wrong} 1 0\n" in text


def test_the_pairs_spell_both_sides() -> None:
    rng = random.Random(3)
    for _ in range(200):
        ref = rng.choices("abc", k=rng.randint(0, 9))
        hyp = rng.choices("abc", k=rng.randint(0, 9))
        found = align(ref, hyp)
        assert [a for a, _ in found.pairs if a is not None] == ref
        assert [b for _, b in found.pairs if b is not None] == hyp
        assert found.correct + found.substituted + found.deleted == len(ref)
        assert found.correct + found.substituted + found.inserted == len(hyp)


def test_no_alignment_is_cheaper() -> None:
    rng = random.Random(5)
    for _ in range(300):
        ref = rng.choices("abcd", k=rng.randint(0, 20))
        hyp = rng.choices("abcd", k=rng.randint(0, 20))
        _, substituted, deleted, inserted = counts(ref, hyp)
        cheapest = Levenshtein.distance(ref, hyp, weights=(3, 3, 4))
        assert 4 * substituted + 3 * (deleted + inserted) == cheapest


def run_sclite(
    sclite: str, folder: Path, pairs: list[tuple[list[str], list[str]]]
) -> str:
    for name, column in (("ref", 0), ("hyp", 1)):
        lines = [
            f"{' '.join(pair[column])}\t(s{index % 3}-u{index:04d})\n"
            for index, pair in enumerate(pairs)
        ]
        (folder / f"{name}.trn").write_text("".join(lines), encoding="utf-8")
    command = [sclite, "-r", str(folder / "ref.trn"), "trn"]
    command += ["-h", str(folder / "hyp.trn"), "trn", "-i", "rm", "-o", "all", "stdout"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.sclite
@pytest.mark.parametrize(
    "alphabet",
    ["ab", "abcd", "abcdefghij", "abAB", "你好世a", ["<space>", "it's", "b.", "(x)"]],
)
def test_same_numbers_as_sclite(
    sclite: str, alphabet: Sequence[str], tmp_path: Path
) -> None:
    rng = random.Random(11)
    pairs = [
        (
            rng.choices(alphabet, k=rng.randint(0, 14)),
            rng.choices(alphabet, k=rng.randint(0, 14)),
        )
        for _ in range(600)
    ]
    output = run_sclite(sclite, tmp_path, pairs)
    found = re.findall(
        r"id: \(s\d-u(\d+)\)\nScores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", output
    )
    assert len(found) == len(pairs)
    for index, *expected in found:
        assert counts(*pairs[int(index)]) == tuple(map(int, expected))
    scored = [
        ScoredUtterance(f"s{index % 3}", f"u{index:04d}", align(*pair))
        for index, pair in enumerate(pairs)
    ]
    rows = [
        re.findall(r"[-\d.]+", line)
        for line in output.splitlines()
        if re.match(r"\s*\|\s*Sum(/Avg)?\s*\|", line)
    ]
    ours = [
        re.findall(r"[-\d.]+", line)
        for line in result_text(scored, "x").splitlines()
        if re.match(r"\s*\|\s*Sum(/Avg)?\s*\|", line)
    ]
    assert len(ours) == len(rows) == 2
    assert ours == rows


@pytest.mark.slow
@pytest.mark.sclite
@pytest.mark.parametrize("words", [16, 32, 48, 80, 112, 400])
def test_halves_are_rounded_as_sclite_rounds_them(
    sclite: str, words: int, tmp_path: Path
) -> None:
    for wrong in range(1, words, max(1, words // 16)):
        pair = (["a"] * words, ["b"] * wrong + ["a"] * (words - wrong))
        (line,) = (
            line
            for line in run_sclite(sclite, tmp_path, [pair]).splitlines()
            if re.match(r"\s*\|\s*Sum/Avg\s*\|", line)
        )
        expected = list(map(float, re.findall(r"[-\d.]+", line)))[2:]
        total = sums([ScoredUtterance("s", "u", align(*pair))])
        assert total.percentages() == expected, wrong


def test_sums_of_no_words_are_finite() -> None:
    total = sums([ScoredUtterance("s", "u", align([], ["a"]))])
    assert total.percentages() == [0, 0, 0, 0, 0, 100]


def test_results_md_reads_our_table_and_sclites(tmp_path: Path) -> None:
    exp = tmp_path / "asr_x"
    ours, theirs = exp / "dec/test/score_cer", exp / "dec/test/score_wer"
    ours.mkdir(parents=True)
    theirs.mkdir()
    scored = [ScoredUtterance("s", "u", align(list("abcd"), list("abxd")))]
    (ours / "result.txt").write_text(result_text(scored, "x"), encoding="utf-8")
    (theirs / "result.txt").write_text(
        "|   Sum/Avg   |      3           7    |   57.1        42.9         0.0       "
        "114.3       157.1       100.0    |\n"
    )
    text = results_md(exp)
    assert "|dataset|Snt|Wrd|Corr|Sub|Del|Ins|Err|S.Err|" in text
    assert "|dec/test|1|4|75.0|25.0|0.0|0.0|25.0|100.0|" in text
    assert "|dec/test|3|7|57.1|42.9|0.0|114.3|157.1|100.0|" in text
    assert text.index("### WER") < text.index("### CER")


def test_a_lost_utterance_is_named(tmp_path: Path) -> None:
    (tmp_path / "ref").write_text("u1 a\nu2 b\nu3\n")
    (tmp_path / "hyp").write_text("u1 a\nu3 x\n")
    with pytest.raises(UserError, match=r"hyp lacks 1 of 3 utterances \(u2\)"):
        paired_texts(tmp_path / "ref", tmp_path / "hyp")
    (tmp_path / "hyp").write_text("u3\nu1 a\nu2\nu4 b\n")
    with pytest.raises(UserError, match=r"ref lacks 1 of 4 utterances \(u4\)"):
        paired_texts(tmp_path / "ref", tmp_path / "hyp")
    (tmp_path / "hyp").write_text("u3\nu1 a\nu2\n")
    pairs = paired_texts(tmp_path / "ref", tmp_path / "hyp")
    assert pairs == [("u1", "a", "a"), ("u2", "b", ""), ("u3", "", "")]
