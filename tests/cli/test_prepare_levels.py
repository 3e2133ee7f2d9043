"""prepare_levels: which files are made, kept and refused. No model is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from espnet_cif_hkd.cli import prepare_levels
from espnet_cif_hkd.recipe import unit_lm

TOKENS = ["<blank>", "<unk>", "<space>", *"ABCDEGHIKLNORSTVY", "<sos/eos>"]
TRAIN = {"u1": "THE CAT IS HERE", "u2": "I LIKE THE CAT", "u3": "A CAT AND A DOG"}
VALID = {"v1": "THE DOG IS HERE", "v2": "I HAVE A CAT"}
PHONE = {
    "tap": "layer:1",
    "unit": "lexicon",
    "unit_token_list": "exp/lm_levels/lexicon/tokens.txt",
    "lexicon": "exp/lm_levels/lexicon/lexicon.txt",
    "map": "cif",
    "lm": "exp/lm_levels/phone",
    "label_store": "dump/lm_labels/phone",
}
CHAR = {
    "tap": "hs_pad",
    "unit": "token",
    "lm": "exp/lm_levels/char",
    "label_store": "dump/lm_labels/char",
}
BPE = {
    "tap": "hs_pad",
    "unit": "bpe",
    "unit_token_list": "exp/lm_levels/bpe/tokens.txt",
    "unit_bpemodel": "exp/lm_levels/bpe/bpe.model",
    "map": "cif",
    "lm": "exp/lm_levels/bpe_lm",
    "label_store": "dump/lm_labels/bpe",
}


def write_rows(path: str, rows: dict[str, str]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(f"{key} {value}\n" for key, value in rows.items()))


@pytest.fixture(autouse=True)
def trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[list[str]]]:
    """A recipe after stage 5, and the sentences that each language model learns."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data/train", "dump/raw/train"):
        write_rows(f"{folder}/text", TRAIN)
    for folder in ("dump/raw/org/dev", "dump/raw/dev"):
        write_rows(f"{folder}/text", VALID)
    tokens = Path("data/en_token_list/char/tokens.txt")
    tokens.parent.mkdir(parents=True)
    tokens.write_text("".join(f"{token}\n" for token in TOKENS))
    learned: dict[str, list[list[str]]] = {}

    def train(lm: Any, train: Any, valid: Any, inputs: Any) -> bool:
        learned[str(lm.folder)] = [*train()]
        learned[f"{lm.folder} valid"] = [*valid()]
        learned[f"{lm.folder} inputs"] = [[inputs.hexdigest()]]
        return True

    monkeypatch.setattr(unit_lm, "train_unit_lm", train)
    return learned


def run(levels: dict[str, Any], *more: str, asr: tuple[str, ...] = ()) -> None:
    """Run the command for some levels; ``more`` are our options."""
    conf = {"criteria": {"lm": {"type": "soft_labels", "levels": levels}}}
    Path("asr.yaml").write_text(yaml.safe_dump({"model_conf": conf}))
    prepare_levels.main(
        [
            *("--lexicon_source", "cmudict", "--unknown_words", "guess", *more, "--"),
            *("--train_set", "train", "--valid_set", "dev", "--test_sets", "test"),
            *("--token_type", "char", "--lang", "en", "--ngpu", "0"),
            *("--lm_train_text", "data/train/text", "--asr_config", "asr.yaml", *asr),
        ]
    )


def refused(call: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        call()
    assert stopped.value.code == 1
    errors = [e for e in capsys.readouterr().err.splitlines() if e.startswith("error:")]
    assert len(errors) == 1
    return errors[0]


@pytest.mark.slow
def test_phones_and_tokens(trained: dict[str, list[list[str]]]) -> None:
    run({"phone": PHONE, "char": CHAR})
    phones = Path(PHONE["unit_token_list"]).read_text().split()
    assert phones[:2] == ["<blank>", "<unk>"] and "K" in phones
    assert " ".join(trained["exp/lm_levels/phone"][1]) == "AY L AY K DH AH K AE T"
    assert trained["exp/lm_levels/char"][1] == [
        {" ": "<space>"}.get(c, c) for c in TRAIN["u2"]
    ]
    assert len(trained["exp/lm_levels/char valid"]) == len(VALID)
    # The lexicon has the words of validation, which are stored too.
    words = Path(PHONE["lexicon"]).read_text().splitlines()
    assert any(line.startswith("HAVE ") for line in words)


def test_only_what_the_levels_use(trained: dict[str, list[list[str]]]) -> None:
    hard = "--model_conf criteria.lm.levels.phone.soft=0.0"
    off = "--model_conf criteria.lm.levels.char.weight=0.0"
    run({"phone": PHONE, "char": CHAR, "bpe": {**BPE, "weight": 0.0}})
    assert not Path("exp/lm_levels/bpe").exists()
    trained.clear()
    run({"phone": PHONE, "char": CHAR}, asr=("--asr_args", f"{hard} {off}"))
    assert not trained
    uniform = {**CHAR, "lm": None, "lm_type": "uniform"}
    run({"char": uniform})
    assert not trained


def test_counts_of_units_for_unigram_labels(
    trained: dict[str, list[list[str]]], capfd: pytest.CaptureFixture[str]
) -> None:
    """The checks before stage 10 need the file."""
    from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher

    counts = Path("exp/lm_levels/char_unigram/counts.txt")
    char = {**CHAR, "lm_type": "unigram", "lm": str(counts)}
    run({"char": char})
    assert not trained
    text = "".join(TRAIN.values())
    found = dict(line.rsplit(" ", 1) for line in counts.read_text().splitlines())
    assert found["A"] == str(text.count("A"))
    assert found["<space>"] == str(text.count(" "))
    build_lm_teacher(char, TOKENS).check()
    before = counts.stat().st_mtime_ns
    run({"char": char})
    assert "up to date" in capfd.readouterr().out
    assert counts.stat().st_mtime_ns == before
    write_rows("data/train/text", {"u1": "A CAT"})
    run({"char": char})
    assert f"A {'A CAT'.count('A')}" in counts.read_text().splitlines()


def test_further_text_teaches_the_language_models(
    trained: dict[str, list[list[str]]],
) -> None:
    write_rows("more.txt", {"m1": "THE ZEBRA IS HERE"})
    texts = ("--lm_train_text", "data/train/text more.txt")
    run({"phone": PHONE, "char": CHAR}, asr=texts)
    assert len(trained["exp/lm_levels/phone"]) == len(TRAIN) + 1
    lexicon = Path(PHONE["lexicon"]).read_text().splitlines()
    assert any(line.startswith("ZEBRA ") for line in lexicon)
    # The recogniser has no Z: this label is unknown in the other unit.
    assert "<unk>" in trained["exp/lm_levels/char"][-1]


def test_files_that_are_up_to_date_are_kept(
    trained: dict[str, list[list[str]]], capfd: pytest.CaptureFixture[str]
) -> None:
    levels = {"phone": PHONE, "bpe": BPE}
    run(levels, "--level_nbpe", "22")
    made = [Path(PHONE["lexicon"]), Path(BPE["unit_bpemodel"])]
    times = [path.stat().st_mtime_ns for path in made]
    inputs = trained["exp/lm_levels/phone inputs"]
    capfd.readouterr()
    run(levels, "--level_nbpe", "22")
    assert [path.stat().st_mtime_ns for path in made] == times
    assert capfd.readouterr().out.count("up to date") == 2
    assert trained["exp/lm_levels/phone inputs"] == inputs
    for path in ("data/train/text", "dump/raw/train/text"):
        write_rows(path, {**TRAIN, "u4": "THE ZEBRA"})
    run(levels, "--level_nbpe", "22")
    assert all(path.stat().st_mtime_ns > old for path, old in zip(made, times))
    assert trained["exp/lm_levels/phone inputs"] != inputs


def test_sub_words(trained: dict[str, list[list[str]]]) -> None:
    run({"bpe": BPE}, "--level_nbpe", "22")
    tokens = Path(BPE["unit_token_list"]).read_text().splitlines()
    assert len(tokens) == 22 and tokens[-1] == "<sos/eos>"
    sentence = trained["exp/lm_levels/bpe_lm"][0]
    assert "".join(sentence).replace("▁", " ").strip() == TRAIN["u1"]


@pytest.mark.parametrize(
    ("unit", "expected", "first"),
    [
        ("char", {*"ACDEGHIKLNORST", "<space>"}, ["T", "H", "E", "<space>"]),
        ("word", set(" ".join(TRAIN.values()).split()), TRAIN["u1"].split()),
    ],
)
def test_characters_and_words_of_the_training_set(
    trained: dict[str, list[list[str]]],
    capfd: pytest.CaptureFixture[str],
    unit: str,
    expected: set[str],
    first: list[str],
) -> None:
    """Further text teaches the language model, but has no unit of its own."""
    path = Path("exp/lm_levels/units/tokens.txt")
    lm = "exp/lm_levels/lm"
    level = {"tap": "hs_pad", "unit": unit, "unit_token_list": str(path), "map": "cif"}
    levels = {"own": {**level, "lm": lm, "label_store": "dump/lm_labels/own"}}
    write_rows("more.txt", {"m1": "THE ZEBRA IS HERE"})
    more = ("--lm_train_text", "data/train/text more.txt")
    run(levels, asr=more)
    tokens = path.read_text().splitlines()
    assert tokens[:2] == ["<blank>", "<unk>"] and tokens[-1] == "<sos/eos>"
    assert set(tokens[2:-1]) == expected
    assert trained[lm][0][: len(first)] == first and "<unk>" in trained[lm][-1]
    state = path.stat().st_mtime_ns
    capfd.readouterr()
    run(levels, asr=more)
    assert path.stat().st_mtime_ns == state
    assert f"{path.parent}: up to date" in capfd.readouterr().out
    write_rows("dump/raw/train/text", {**TRAIN, "u4": "THE ZEBRA"})
    run(levels, asr=more)
    assert set(path.read_text().split()) >= ({"Z"} if unit == "char" else {"ZEBRA"})


def test_a_token_list_of_the_user_is_not_changed(
    trained: dict[str, list[list[str]]],
) -> None:
    Path("words.txt").write_text("<blank>\n<unk>\nCAT\n<sos/eos>\n")
    level = {"tap": "hs_pad", "unit": "word", "unit_token_list": "words.txt"}
    level |= {"map": "cif", "lm": "exp/lm_levels/lm", "label_store": "dump/labels"}
    run({"word": level})
    assert Path("words.txt").read_text().split()[2] == "CAT"
    assert trained["exp/lm_levels/lm"][0] == ["<unk>", "CAT", "<unk>", "<unk>"]


def test_a_lexicon_of_the_user_is_not_changed(
    trained: dict[str, list[list[str]]],
) -> None:
    words = {word for text in (TRAIN | VALID).values() for word in text.split()}
    mine = "".join(f"{word} X Y\n" for word in sorted(words))
    Path("mine.txt").write_text(mine)
    Path("mine_tokens.txt").write_text("<blank>\n<unk>\nX\nY\n<sos/eos>\n")
    files = {"lexicon": "mine.txt", "unit_token_list": "mine_tokens.txt"}
    run({"phone": {**PHONE, **files}})
    assert Path("mine.txt").read_text() == mine
    assert set(trained["exp/lm_levels/phone"][0]) == {"X", "Y"}


def aligned(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace the aligner by one that writes two states for each utterance."""
    from espnet_cif_hkd.cli import align_units

    calls: list[Any] = []

    def align(args: Any) -> None:
        calls.append(args)
        rows = "".join(
            f"{name} 1 0.0 0.1 7\n{name} 1 0.1 0.1 9\n" for name in (*TRAIN, *VALID)
        )
        (args.out_dir / "state.ctm").write_text(rows)
        tokens = "<blank>\n<unk>\n7\n9\n<sos/eos>\n"
        (args.out_dir / "state_tokens.txt").write_text(tokens)

    monkeypatch.setattr(align_units, "run", align)
    return calls


STATE = {
    "tap": "layer:1",
    "unit": "aligned",
    "unit_token_list": "exp/lm_levels/align/state_tokens.txt",
    "map": "alignment",
    "alignment": "exp/lm_levels/align/state.ctm",
    "lm": "exp/lm_levels/state",
    "label_store": "dump/lm_labels/state",
}


def test_states_of_an_alignment(
    trained: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = aligned(monkeypatch)
    state = {**STATE, "lexicon": PHONE["lexicon"], "max_missing": 5.0}
    for _ in range(2):
        run({"state": state}, asr=("--fs", "8k"))
    (args,) = calls  # the second time they were up to date
    assert args.fs == "8k" and args.max_missing == 5.0
    assert [str(path) for path in args.data_dir] == ["dump/raw/train", "dump/raw/dev"]
    assert trained["exp/lm_levels/state"] == [["7", "9"]] * len(TRAIN)
    assert trained["exp/lm_levels/state valid"] == [["7", "9"]] * len(VALID)


@pytest.mark.parametrize(
    ("levels", "more", "message"),
    [
        ({"char": {**CHAR, "tapp": 1}}, [], "criteria.lm.levels.char: 'tapp' is unkno"),
        (
            {"phone": PHONE},
            ["--lexicon_source", ""],
            "lexicon/tokens.txt: this file does not exist",
        ),
        (
            {"phone": PHONE, "char": {**CHAR, "lm": PHONE["lm"]}},
            [],
            "levels.phone: has the same lm as char, but another unit",
        ),
        (
            {"state": STATE},
            [],
            "alignments in exp/lm_levels/align need one lexicon, but the levels name 0",
        ),
        (
            {"phone": {**PHONE, "lexicon": "exp/words.txt"}},
            [],
            "exp/words.txt: a lexicon that this command makes is called lexicon.txt",
        ),
        (
            {"bpe": {**BPE, "unit_bpemodel": "exp/mine.model"}},
            [],
            "exp/mine.model: a model that this command makes is bpe.model",
        ),
        (
            {"word": {**CHAR, "unit": "word", "unit_token_list": "exp/words.txt"}},
            [],
            "exp/words.txt: a token list that this command makes is tokens.txt",
        ),
        ({"char": CHAR}, ["--level_lm_config", "no.yaml"], "--level_lm_config no.yaml"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str],
    levels: dict[str, Any],
    more: list[str],
    message: str,
) -> None:
    assert message in refused(lambda: run(levels, *more), capsys)


def test_the_recipe_must_have_run(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/train/text").unlink()
    error = refused(lambda: run({"char": CHAR}), capsys)
    assert "data/train/text is missing: run stages 1 to 5 first" in error


def test_options_that_only_asr_sh_knows_are_no_error(
    trained: dict[str, list[list[str]]],
) -> None:
    run({"char": CHAR}, asr=("--num-nodes", "2", "--use_k2", "true"))
    assert "exp/lm_levels/char" in trained
