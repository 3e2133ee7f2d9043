"""Units: transcripts and token ids of the recogniser become the same label ids."""

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm.units import AbsUnit, build_unit

SYMBOLS = ("<blank>", "<unk>")
TEXTS = ("THE CAT'S HAT", "A", "HAT THE", "")
CHARS = [*SYMBOLS, "<space>", *"ACEHST'", "<sos/eos>"]
WORDS = [*SYMBOLS, "THE", "CAT'S", "HAT", "A", "<sos/eos>"]
LEXICON = "the DH AH\nthe(2) DH IY\nthe DH IY\ncat's K AE T S\nhat HH AE T\na AH\n"
PHONES = [*SYMBOLS, *("AH", "DH", "K", "AE", "T", "S", "HH", "IY"), "<sos/eos>"]


def recogniser_ids(text: str, kind: str, tokens: list[str], model: str | None) -> Any:
    from espnet2.text.build_tokenizer import build_tokenizer

    spelled = build_tokenizer(kind, model).text2tokens(text)
    return [tokens.index(token) if token in tokens else 1 for token in spelled]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A sentencepiece model of capitals, and its token list in ESPnet's order."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("bpe")
    (folder / "text").write_text("THE CAT'S HAT\nA HAT THAT\nTHE CHEST\n" * 30)
    sentencepiece.SentencePieceTrainer.Train(
        f"--input={folder}/text --model_prefix={folder}/bpe --vocab_size=19 "
        "--hard_vocab_limit=false --minloglevel=2"
    )
    model = sentencepiece.SentencePieceProcessor(f"{folder}/bpe.model")
    pieces = [model.IdToPiece(i) for i in range(3, model.GetPieceSize())]
    return f"{folder}/bpe.model", [*SYMBOLS, *pieces, "<sos/eos>"]


@pytest.fixture
def confs(tmp_path: Path, bpe: tuple[str, list[str]]) -> dict[str, dict[str, Any]]:
    """A configuration of each unit."""
    model, pieces = bpe
    (tmp_path / "lexicon.txt").write_text(LEXICON)
    lists = {"char": CHARS, "word": WORDS, "bpe": pieces, "lexicon": PHONES}
    confs: dict[str, dict[str, Any]] = {}
    for name, labels in lists.items():
        path = tmp_path / f"{name}_tokens.txt"
        path.write_text("".join(f"{label}\n" for label in labels))
        confs[name] = {"unit": name, "unit_token_list": str(path)}
    confs["bpe"]["unit_bpemodel"] = model
    confs["lexicon"]["lexicon"] = str(tmp_path / "lexicon.txt")
    return confs


def labels_of(unit: AbsUnit, text: str) -> str:
    return " ".join(unit.token_list[i] for i in unit.encode(text))


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
@pytest.mark.parametrize("name", ["char", "word", "bpe", "lexicon"])
def test_recogniser_ids_and_text_give_the_same_labels(
    kind: str, name: str, confs: dict[str, Any], bpe: tuple[str, list[str]]
) -> None:
    model, pieces = bpe
    tokens = {"char": CHARS, "word": WORDS, "bpe": pieces}[kind]
    unit = build_unit(confs[name], tokens, kind)
    for text in TEXTS:
        ids = recogniser_ids(text, kind, tokens, model)
        found = unit.sequence(ids)
        assert found == unit.encode(text)
        assert bool(found) == bool(text)
        assert unit.sequence(ids) == found  # from the cache, too
        assert not {0, 1, len(unit.token_list) - 1} & set(found)


def test_the_recognisers_own_tokens_stay(bpe: tuple[str, list[str]]) -> None:
    model, pieces = bpe
    for kind, tokens in (("char", CHARS), ("word", WORDS), ("bpe", pieces)):
        unit = build_unit({}, tokens, kind)
        assert unit.name == "token" and unit.token_list == tuple(tokens)
        assert unit.sequence([4, 1, 3]) == [4, 1, 3]
    with pytest.raises(UserError, match="unit_bpemodel"):
        unit.encode("THE")
    unit = build_unit({"unit_bpemodel": model}, pieces, "bpe")
    assert unit.encode("THE HAT") == recogniser_ids("THE HAT", "bpe", pieces, model)
    assert build_unit({}, CHARS).encode("A HAT") == recogniser_ids(
        "A HAT", "char", CHARS, None
    )


def test_a_word_has_its_first_pronunciation_in_any_case(confs: dict[str, Any]) -> None:
    unit = build_unit(confs["lexicon"], [])
    assert labels_of(unit, "THE Cat's hat") == "DH AH K AE T S HH AE T"


def test_a_word_as_written_precedes_another_case(tmp_path: Path) -> None:
    (tmp_path / "lexicon.txt").write_text("polish P AA\nPolish P OW\nus AH\n")
    conf = {
        "unit": "lexicon",
        "unit_token_list": [*SYMBOLS, "P", "AA", "OW", "AH", "<sos/eos>"],
        "lexicon": str(tmp_path / "lexicon.txt"),
    }
    unit = build_unit(conf, [])
    assert labels_of(unit, "Polish polish POLISH US") == "P OW P AA P AA AH"


@pytest.mark.parametrize("name", ["char", "word", "bpe"])
def test_text_gets_the_case_of_the_list(name: str, confs: dict[str, Any]) -> None:
    unit = build_unit(confs[name], [])
    assert unit.encode("the Cat's HAT") == unit.encode("THE CAT'S HAT")
    assert 1 not in unit.encode("the hat")


def test_a_list_of_both_cases_keeps_the_case() -> None:
    conf = {"unit": "char", "unit_token_list": [*SYMBOLS, *"aAb", "<sos/eos>"]}
    assert build_unit(conf, []).encode("aAB") == [2, 3, 1]


@pytest.mark.parametrize(
    "text,expected",
    [
        ("银行 行", "yin2 hang2 xing2"),
        ("我银行行", "wo3 yin2 hang2 xing2"),
        ("我用iPhone行", "wo3 yong4 ai4 xing2"),
        ("我<unk>行", "wo3 <unk> xing2"),
        ("行<unk>", "xing2 <unk>"),
    ],
)
def test_text_without_spaces_takes_the_longest_entries(
    text: str, expected: str, tmp_path: Path
) -> None:
    lexicon = "行 xing2\n银 yin2\n银行 yin2 hang2\n我 wo3\n用 yong4\niphone ai4\n"
    (tmp_path / "lexicon.txt").write_text(lexicon)
    phones = ["xing2", "yin2", "hang2", "wo3", "yong4", "ai4"]
    conf = {
        "unit": "lexicon",
        "unit_token_list": [*SYMBOLS, *phones, "<sos/eos>"],
        "lexicon": str(tmp_path / "lexicon.txt"),
    }
    unit = build_unit(conf, [])
    assert labels_of(unit, text) == expected
    characters = [*SYMBOLS, *dict.fromkeys(text.replace("<unk>", "")), "<sos/eos>"]
    ids = [characters.index(c) for c in text.replace("<unk>", "\0").replace("\0", "")]
    if "<unk>" not in text and " " not in text:
        assert build_unit(conf, characters).sequence(ids) == unit.encode(text)


def test_a_word_with_an_unknown_token_is_one_unknown_label(
    confs: dict[str, Any],
) -> None:
    unit = build_unit(confs["lexicon"], CHARS, "char")
    ids = recogniser_ids("THE HQT A", "char", CHARS, None)
    assert 1 in ids
    spelled = " ".join(unit.token_list[i] for i in unit.sequence(ids))
    assert spelled == "DH AH <unk> AH"
    for name, expected in (("char", 1), ("word", 1), ("bpe", 1)):
        assert build_unit(confs[name], CHARS).sequence(ids).count(1) == expected


def test_words_without_pronunciation(
    confs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["THE QUEEN HAT", "QUEEN", "A DOG", "<unk>"]
    unit = build_unit(confs["lexicon"], [])
    with pytest.raises(UserError, match=r"2 words .*: QUEEN \(2\), DOG \(1\): add"):
        unit.check(texts)
    with pytest.raises(UserError, match=r"1 words .*: QUEEN \(1\): add"):
        unit.encode("THE QUEEN")
    assert unit.check(["THE HAT"]) == Counter()
    unit = build_unit({**confs["lexicon"], "unknown_words": "unk"}, [])
    assert unit.check(texts) == Counter({"QUEEN": 2, "DOG": 1})
    assert "QUEEN (2), DOG (1)" in caplog.text
    assert labels_of(unit, "THE QUEEN") == "DH AH <unk>"


@pytest.mark.parametrize("name", ["char", "word", "bpe"])
def test_another_token_list_is_refused(name: str, confs: dict[str, Any]) -> None:
    unit = build_unit(confs[name], [])
    with pytest.raises(UserError, match="labels of the text are not in"):
        unit.check(["ЖЖ ЖЖ ЖЖ"])
    assert unit.check(["THE HAT"] * 20 + ["Ж"])["<unk>"] >= 1
    assert unit.check(["<unk> <unk>"] * 3) == Counter()


@pytest.mark.parametrize(
    "change,message",
    [
        ({"unit": "syllable"}, "unit: 'syllable' is unknown; use one of token, char"),
        ({"unit_token_list": None}, "needs unit_token_list"),
        ({"unit_token_list": "none.txt"}, "none.txt is missing"),
        ({"unit_token_list": [*PHONES[:-1]]}, "not in ESPnet's order"),
        ({"unit_token_list": PHONES[1:]}, "not in ESPnet's order"),
        ({"unit_token_list": [*SYMBOLS, "A", "A", "<sos/eos>"]}, "A occurs twice"),
        ({"unit_token_list": [*SYMBOLS, "AH", "<sos/eos>"]}, "DH, K, AE, T, S and 1"),
        ({"lexicon": None}, "needs 'lexicon'"),
        ({"lexicon": "none.txt"}, "lexicon none.txt is missing"),
        ({"unknown_words": "guess"}, "use one of error, unk"),
        ({"unit": "bpe"}, "unit_bpemodel is not set"),
        ({"unit": "bpe", "unit_bpemodel": "none.model"}, "none.model is missing"),
    ],
)
def test_wrong_options_are_refused_when_the_unit_is_built(
    change: dict[str, Any], message: str, confs: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_unit({**confs["lexicon"], **change}, [])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content,message",
    [
        ("THE DH AH\nHAT\n", "line 2: HAT has no phones"),
        ("<UNK> SPN\n!SIL SIL\n\n", "has no entries"),
        ("", "has no entries"),
    ],
)
def test_a_wrong_lexicon_is_refused(
    content: str, message: str, confs: dict[str, Any]
) -> None:
    Path(confs["lexicon"]["lexicon"]).write_text(content)
    with pytest.raises(UserError, match=message):
        build_unit(confs["lexicon"], [])


def test_description_is_the_content_and_not_the_path(
    confs: dict[str, Any], tmp_path: Path
) -> None:
    for name, conf in confs.items():
        described = build_unit(conf, []).describe()
        assert json.loads(json.dumps(described)) == described
        assert described["unit"] == name
        assert str(tmp_path) not in json.dumps(described)
    conf = confs["lexicon"]
    before = build_unit(conf, []).describe()
    copy = tmp_path / "copy.txt"
    copy.write_text(LEXICON)
    assert build_unit({**conf, "lexicon": str(copy)}, []).describe() == before
    copy.write_text(LEXICON.replace("HH AE T", "AE T"))
    assert build_unit({**conf, "lexicon": str(copy)}, []).describe() != before


def test_an_aligned_unit_has_no_text() -> None:
    conf = {"unit": "aligned", "unit_token_list": [*SYMBOLS, "17", "<sos/eos>"]}
    unit = build_unit(conf, CHARS, "char")
    assert unit.token_list[2] == "17" and unit.check(["A"]) == Counter()
    for call in (lambda: unit.encode("A"), lambda: unit.sequence([3])):
        with pytest.raises(UserError, match="map: alignment"):
            call()


def test_units_can_be_sent_to_other_processes(confs: dict[str, Any]) -> None:
    for conf in confs.values():
        unit = build_unit(conf, CHARS, "char")
        copy = pickle.loads(pickle.dumps(unit))
        ids = recogniser_ids("THE HAT", "char", CHARS, None)
        assert copy.sequence(ids) == unit.sequence(ids)
