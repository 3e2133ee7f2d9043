"""The text that Whisper writes is that of its own decoder, token by token."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bpe_whisper import build_bpe_whisper
from tiny_whisper import speech
from writing_whisper import (
    EARLIER,
    END,
    WORDS,
    build_writing_whisper,
    change_config,
    tone,
)

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.speech.whisper_text import WhisperText, is_whisper


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_writing_whisper(tmp_path_factory.mktemp("whisper"))


def waves() -> list[np.ndarray]:
    return [tone(n) for n in range(8)]


def naive_text(folder: Path, wave: np.ndarray, before: list[int]) -> str:
    """The most probable token again and again, each from the beginning."""
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    given = extractor(wave, sampling_rate=16000, return_tensors="pt").input_features
    tokens, words = [*before, 1, 2, 3, 4], []
    for _ in range(round(12 * len(wave) / 16000) + 16):
        with torch.no_grad():
            logits = model(given, decoder_input_ids=torch.tensor([tokens])).logits
        tokens.append(int(logits[0, -1].argmax()))
        if tokens[-1] == END:
            return " ".join(words)
        words.append(WORDS[tokens[-1] - 5])
    return ""


def test_texts_are_those_of_a_naive_search(folder: Path) -> None:
    found = WhisperText(folder, language="en").texts(waves())
    assert found == [naive_text(folder, one, []) for one in waves()]
    assert len(set(found)) > 3


def test_a_text_before_is_read_first(folder: Path) -> None:
    words = [5 + len(WORDS), *(5 + WORDS.index(one) for one in ("good", "so"))]
    model = WhisperText(folder, language="en", before=" good so ")
    assert model.tokenizer.convert_ids_to_tokens(words[0]) == EARLIER
    found = model.texts(waves())
    assert found == [naive_text(folder, one, words) for one in waves()]
    assert found != WhisperText(folder, language="en", before=" ").texts(waves())
    assert model.prompt == WhisperText(folder, language="en").prompt
    with pytest.raises(UserError, match="--before has 44 tokens"):
        WhisperText(folder, language="en", before="so " * 39)


def test_a_tokenizer_without_the_token_of_earlier_text(tmp_path: Path) -> None:
    build_bpe_whisper(tmp_path, ["so far so good"] * 2, 270)
    with pytest.raises(UserError, match=r"no <\|startofprev\|>: leave --before out"):
        WhisperText(tmp_path, language="en", before="so far")


def test_companions_do_not_change_a_text(folder: Path) -> None:
    model = WhisperText(folder, language="en")
    assert [model.texts([one])[0] for one in waves()] == model.texts(waves())


def test_a_text_without_an_end_is_empty(tmp_path: Path) -> None:
    endless = build_writing_whisper(tmp_path / "endless", end=-100.0)
    assert WhisperText(endless, language="en").texts(waves()[:2]) == ["", ""]


def test_other_precisions(folder: Path) -> None:
    model = WhisperText(folder, language="en", dtype="bfloat16")
    assert all(set(one.split()) <= set(WORDS) for one in model.texts(waves()))


def test_a_long_recording_is_refused(folder: Path) -> None:
    model = WhisperText(folder, language="en")
    assert (model.rate, model.longest) == (16000, 3.0)
    with pytest.raises(UserError, match=r"3\.1 s is longer than the 3 s that Whisper"):
        model.texts([speech(1.0), speech(3.1)])


def test_english_only_models_need_no_language(tmp_path: Path) -> None:
    build_writing_whisper(tmp_path)
    model = WhisperText(tmp_path, language="en")
    model.model.config.vocab_size = 51864
    assert model._prompt_of(None) == model._prompt_of("en") == [1, 4]
    with pytest.raises(UserError, match="knows English only, not 'de'"):
        model._prompt_of("de")


def test_wrong_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    assert is_whisper(folder) and not is_whisper(tmp_path)
    with pytest.raises(UserError, match="is no folder with a Whisper model: make one"):
        WhisperText(tmp_path, language="en")
    with pytest.raises(UserError, match="knows several languages: give --language"):
        WhisperText(folder)
    with pytest.raises(
        UserError, match=r"tokenizer.json: has no <\|xx\|>: give a lang"
    ):
        WhisperText(folder, language="xx")
    broken = build_writing_whisper(tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="broken: cannot be opened") as caught:
        WhisperText(broken, language="en")
    assert "\n" not in str(caught.value)
    (broken / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer.json; .* adds that of its"):
        WhisperText(broken, language="en")
    (broken / "config.json").write_text(json.dumps([1]))
    assert not is_whisper(broken)


def test_a_model_without_its_decoder_is_refused(tmp_path: Path) -> None:
    build_writing_whisper(tmp_path)
    change_config(tmp_path, decoder_layers=2)
    with pytest.raises(UserError, match=r"lacks \d+ weights, e\.g\. .*encoder_only"):
        WhisperText(tmp_path, language="en")
