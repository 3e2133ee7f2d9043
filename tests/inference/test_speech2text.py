"""Decoding from Python with ``espnet_cif_hkd.Speech2Text``."""

from pathlib import Path

import pytest
import yaml
from espnet2.bin import asr_inference
from tiny_model import TOKENS
from tiny_speech import CHANGES, RATE, model_files, noise

import espnet_cif_hkd


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return model_files(tmp_path_factory.mktemp("exp"), **CHANGES)


@pytest.fixture(scope="module")
def speech2text(files):
    return espnet_cif_hkd.Speech2Text(*files, beam_size=2, nbest=2)


def test_is_espnets_class_and_decodes(speech2text):
    assert isinstance(speech2text, asr_inference.Speech2Text)
    text, tokens, token_ids, hypothesis = speech2text(noise(1.0))[0]
    assert tokens == [TOKENS[i] for i in token_ids]
    assert text == "".join(tokens).replace("<space>", " ")
    assert hypothesis.yseq[0] == hypothesis.yseq[-1] == len(TOKENS) - 1


def test_from_pretrained_gives_our_class(files):
    train_config, model = files
    built = espnet_cif_hkd.Speech2Text.from_pretrained(
        asr_train_config=train_config, asr_model_file=model, beam_size=2
    )
    assert type(built) is espnet_cif_hkd.Speech2Text


def test_the_sampling_rate_is_the_frontends(speech2text):
    assert speech2text.sample_rate == RATE


def test_espnets_aligner_works_with_our_class(speech2text):
    align = pytest.importorskip("espnet2.bin.align", reason="only ESPnet 202611 has it")
    aligner = align.ForcedAligner(speech2text)
    assert aligner.sample_rate == RATE
    [segment] = aligner(noise(1.0), ["AB"])
    assert [token.text for token in segment.tokens] == ["A", "B"]
    assert 0 <= segment.start < segment.end <= 1.0


@pytest.mark.parametrize("samples", [1, 100, 200, 400])
def test_audio_too_short_is_an_empty_hypothesis(speech2text, samples, caplog):
    [(text, tokens, token_ids, hypothesis)] = speech2text(noise(1.0)[:samples])
    assert (text, tokens, token_ids) == ("", [], [])
    assert hypothesis.yseq.tolist() == [len(TOKENS) - 1] * 2
    assert "the hypothesis is empty" in caplog.text


def test_short_utterance_in_a_list(speech2text):
    long, short = noise(1.0), noise(0.05)
    [first, second, third] = speech2text([long, short, long])
    assert second[0][:3] == ("", [], [])
    assert first[0][2] == third[0][2] == speech2text(long)[0][2]


def test_checkpoint_of_another_token_list_is_refused(files, tmp_path):
    config = yaml.safe_load(Path(files[0]).read_text())
    config["token_list"][3], config["token_list"][4] = "B", "A"
    other = tmp_path / "config.yaml"
    other.write_text(yaml.safe_dump(config))
    with pytest.raises(espnet_cif_hkd.UserError, match="another token list"):
        espnet_cif_hkd.Speech2Text(other, files[1])
