"""Texts from other systems: marks, line ends, spaces, and tokens nobody knows."""

import re
import time
from pathlib import Path

import pytest
from finished_recipe import finished, run
from finished_recipe import recipe as complete
from recipe_data import make_run, recipe

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import read_table, write_table
from espnet_cif_hkd.recipe.checks.texts import _shown, _Tokenizer
from espnet_cif_hkd.recipe.stages import filter_data, format_audio, lm, tokens

__all__ = ["complete", "finished", "recipe"]


def rewrite(change: dict[str, str], folder: str = "data/train") -> None:
    """Store the tables as other systems do, with changed texts."""
    for name in ("text", "utt2spk", "wav.scp"):
        table = read_table(f"{folder}/{name}")
        if name == "text":
            table.update(change)
        lines = (f"{key}\t{value}" for key, value in table.items())
        Path(folder, name).write_bytes(
            ("\ufeff" + "\r\n".join(lines) + "\r\n").encode()
        )


@pytest.mark.parametrize("units", ["char", "word", "bpe"])
def test_all_stages_read_the_same_words(
    recipe: Path, units: str, capfd: pytest.CaptureFixture[str]
) -> None:
    spaced = {
        "spk0-train2": "a\u3000b",
        "spk1-train3": "b\u00a0 a ",
        "spk1-train5": "ab\u200ba",
        "spk0-train6": "\u2003ba\tb",
    }
    texts = {
        "lm_train_text": "data/train/text dump/raw/org/train/text",
        "bpe_train_text": "data/train/text",
    }
    made = make_run(token_type=units, nbpe="8", **texts)
    expected = read_table("data/train/text")
    rewrite(spaced)
    format_audio.format_audio(made)
    assert (
        "data/train/text: white space of 4 lines normalised" in capfd.readouterr().out
    )
    filter_data.filter_data(made)
    for name in ("org/train", "train"):
        assert read_table(f"dump/raw/{name}/text") == expected
    lines = Path("dump/raw/lm_train.txt").read_text().splitlines()
    assert lines == [f"{key} {words}" for key, words in expected.items()] * 2
    tokens.make_token_list(made)
    known = tokens.read_token_list(made.paths.token_list)
    assert set("".join(known[2:-1]).replace("<space>", "")) <= {"a", "b", "▁"}
    for path in Path("dump").rglob("*"):
        if path.is_file() and path.suffix not in (".flac", ""):
            assert not {"\r", "\ufeff"} & set(path.read_text())


@pytest.mark.parametrize("in_a_file", [False, True])
def test_more_symbols_than_the_name_of_a_file_holds(
    recipe: Path, in_a_file: bool
) -> None:
    symbols = [f"<symbol{number}>" for number in range(40)]
    Path("symbols").write_text("".join(f"{symbol} more\n" for symbol in symbols))
    made = make_run(
        token_type="bpe",
        nbpe="48",
        bpe_nlsyms="symbols" if in_a_file else ",".join(symbols),
        bpe_train_text="data/train/text",
    )
    tokens.make_token_list(made)
    assert set(symbols) < set(tokens.read_token_list(made.paths.token_list))


def test_a_long_token_list_is_read_quickly(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    path.write_text("".join(f"{number}\n" for number in range(40_000)))
    begun = time.process_time()
    assert len(tokens.read_token_list(path)) == 40_000
    assert time.process_time() - begun < 2
    path.write_text("a\nb\nc\nb\na\n")
    with pytest.raises(UserError, match="has 'a' twice: run stage 5 again"):
        tokens.read_token_list(path)


def test_other_texts_of_the_language_model_have_the_same_words_too(
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    Path("other").write_text("1 a\u3000b\n2 b a\n", encoding="utf-8")
    made = make_run(token_type="char", lm_dev_text="other", lm_test_text="other")
    given: list[str] = []

    def call(module: str, words: list[str], *rest: object) -> None:
        given.extend(words)
        folder = made.paths.lm_exp / "perplexity_test"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ppl").write_text("1")

    monkeypatch.setattr(lm, "call", call)
    monkeypatch.setattr(lm.stamps, "require_model", lambda *words: None)
    monkeypatch.setattr(lm, "perplexity_fingerprint", lambda run: "")
    lm.perplexity(made)
    options = lm._text_options(made)
    for words, name in ((given, "lm_test_text"), (options, "lm_dev_text")):
        (text,) = [word for word in words if word.endswith(f"{name}.txt,text,text")]
        lines = Path(text.partition(",")[0]).read_text().splitlines()
        assert lines == ["1 a b", "2 b a"]
    logged = capfd.readouterr().out
    for name in ("lm_test_text", "lm_dev_text"):
        assert f"--{name} other: white space of 1 lines normalised in" in logged
    plain = make_run(lm_dev_text="data/train/text")
    assert "data/train/text,text,text" in lm._text_options(plain)


def test_local_data_may_write_the_text_of_stage_4(recipe: Path) -> None:
    made = make_run(post_process_local_data_opts="--more yes")
    format_audio.format_audio(made)
    Path("local/data.sh").write_text("sed -i 's/a b/a\u3000b/' dump/raw/train/text\n")
    filter_data.filter_data(made)
    assert read_table("dump/raw/train/text")["spk0-train2"] == "a b"


def test_utt2spk_names_one_speaker_each(recipe: Path) -> None:
    path = Path("data/train/utt2spk")
    whole_file = path.read_text()
    for line in ("spk0-train2", "spk0-train2 spk 0"):
        path.write_text(whole_file.replace("spk0-train2 spk0", line))
        with pytest.raises(
            UserError, match="utt2spk, line 2: write 'spk0-train2 speak"
        ):
            format_audio.format_audio(make_run())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "xé\u3000x",
            "of dump/raw/train .*often x .2., é .1., U.3000 IDEOGRAPHIC SPACE .1.: ",
        ),
        ("a\ub9c8 \ub9c8", "of dump/raw/train .*most often \ub9c8 .2.: the model"),
    ],
)
def test_unknown_tokens_are_counted_before_stage_10(
    complete: Path, capfd: pytest.CaptureFixture[str], words: str, line: str
) -> None:
    """As in a dump that asr.sh made, which is not normalised."""
    text = read_table("dump/raw/train/text")
    write_table("dump/raw/train/text", {**text, "spk0-train0": words})
    assert run(stage="10", stop_stage="10") == 0
    printed = capfd.readouterr().out
    assert len(re.findall(r"are <unk>", printed)) == 1
    assert re.search(rf"warning: preflight: \d of \d+ tokens {line}", printed), printed
    assert printed.index("are <unk>") < printed.index("stage 10 (")


def test_no_unknown_tokens_no_line(
    complete: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(stage="10", stop_stage="10") == 0
    assert "<unk>" not in capfd.readouterr().out


def test_a_small_share_is_no_warning(capfd: pytest.CaptureFixture[str]) -> None:
    for total, warned in ((100, True), (10000, False)):
        tokenizer = _Tokenizer(None)
        tokenizer.total = total
        tokenizer.unknown.update(["x"])
        tokenizer.report(Path("data/x"))
        printed = capfd.readouterr().out
        assert f"1 of {total} tokens of data/x" in printed
        assert ("warning: " in printed) == warned


def test_what_cannot_be_seen_is_named() -> None:
    assert _shown("x") == "x" and _shown("▁é") == "▁é"
    assert _shown("\u200b") == "U+200B ZERO WIDTH SPACE"
    assert _shown("a\u00a0") == "U+0061 LATIN SMALL LETTER A U+00A0 NO-BREAK SPACE"
