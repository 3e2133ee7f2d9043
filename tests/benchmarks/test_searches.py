"""The comparison of searches: rates, differences, what replaces a character."""

from pathlib import Path

import pytest
import searches


def write(path: Path, **rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name} {text}\n" for name, text in rows.items()))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_words_and_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "text", a="SO FAR", b="GOOD BYE")
    write(tmp_path / "one/test/text", a="SO FAR", b="GOD BUY")
    write(tmp_path / "two/test/text", a="SO FOR", b="GOOD BYE")
    folders = [str(tmp_path / name / "test") for name in ("one", "two")]
    searches.main([str(tmp_path / "text"), *folders])
    head, _, first, second = capsys.readouterr().out.splitlines()[2:]
    assert cells(head) == ["", "CER, %", "difference", "WER, %", "difference"]
    # 12 characters and 4 words; 3 and 2 errors, then 1 and 1.
    assert cells(first) == ["one", "25.00", "–", "50.00", "–"]
    name, cer, fewer, wer, fewer_words = cells(second)
    assert (name, cer, wer) == ("two", "8.33", "25.00")
    # One of the two utterances has another error more, the other three fewer.
    assert fewer.startswith("-16.67 (-") and fewer_words.startswith("-25.00 (")


def test_what_replaces_a_character(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "dev", "test"):
        data = tmp_path / "dump/raw" / name
        write(data / "text", u="他在看她")
        write(data / "utt2spk", u="s")
        write(tmp_path / "data" / name / "pinyin", u="ta1 zai4 kan4 ta1")
    write(tmp_path / "found", u="她在在她")
    monkeypatch.chdir(tmp_path)
    searches.main(["dump/raw/test/text", "found", "--readings", "data/{set}/pinyin"])
    head, _, row = capsys.readouterr().out.splitlines()[2:]
    found = dict(zip(cells(head), cells(row), strict=True))
    assert found["CER, %"] == "50.00"
    assert found["a homophone: same syllable and tone"] == "25.0"
    assert found["another syllable"] == "25.0"


def test_a_missing_text_is_named(tmp_path: Path) -> None:
    write(tmp_path / "text", a="SO", b="FAR")
    write(tmp_path / "found", a="SO")
    with pytest.raises(SystemExit, match=r"found lacks 1 texts: b"):
        searches.main([str(tmp_path / "text"), str(tmp_path / "found")])
