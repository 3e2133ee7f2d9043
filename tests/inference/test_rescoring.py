"""A language model that chooses among the hypotheses of the beam search."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from tiny_hf_lm import build_causal, build_masked
from tiny_model import tiny_config, tiny_model
from tiny_speech import CHANGES, noise

from espnet_cif_hkd import UserError
from espnet_cif_hkd.cli import transcribe
from espnet_cif_hkd.inference.recognizer import Recognizer
from espnet_cif_hkd.teachers.lm.sentences import SentenceScorer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a causal and a masked language model."""
    top = tmp_path_factory.mktemp("rescoring")
    config = tiny_config(token_type="char", **CHANGES)
    (top / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(tiny_model(**CHANGES).state_dict(), top / "1epoch.pth")
    build_causal(top / "causal")
    build_masked(top / "masked")
    return top


@pytest.mark.slow
def test_the_sum_of_both_scores_decides(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with paths relative to the working folder, not to that of the model."""
    monkeypatch.chdir(folder)
    beam = {"greedy": False, "beam_size": 4, "nbest": 4}
    plain = Recognizer(folder, **beam).recognise(noise(0.5))
    chosen = Recognizer(folder, rescore_lm="causal", rescore_weight=3.0, **beam)
    scorer = SentenceScorer("causal")
    scorer.settle_case(chosen.tokens)
    texts = [one.text for one in plain.nbest]
    expected = sorted(
        (
            replace(one, score=one.score + 3.0 * other)
            for one, other in zip(plain.nbest, scorer(texts), strict=True)
        ),
        key=lambda one: -one.score,
    )
    found = chosen.recognise(noise(0.5)).validate()
    assert [one.text for one in found.nbest] == [one.text for one in expected]
    assert [one.text for one in found.nbest] != texts
    for one, other in zip(found.nbest, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-3)
        assert one.tokens == other.tokens
    assert found.text == expected[0].text
    first = Recognizer(
        folder, greedy=False, beam_size=4, rescore_lm="causal", rescore_weight=3.0
    )
    assert first.recognise(noise(0.5)).nbest == ()
    assert first.recognise(noise(0.5)).text == found.text
    assert first.recognise(noise(0.0)).text == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rescore_lm": "causal"}, "greedy=False and a beam_size of 2 or more"),
        ({"rescore_lm": "causal", "greedy": False, "beam_size": 1}, "greedy=False"),
        ({"rescore_lm": "none/such"}, "greedy=False"),
        ({"rescore_lm": "./none", "greedy": False}, "this folder does not exist"),
        ({"rescore_lm": "masked", "greedy": False}, "is no causal LM"),
        (
            {"rescore_lm": "causal", "greedy": False, "rescore_weight": -1.0},
            "rescore_weight is -1.0",
        ),
    ],
)
def test_refused_before_the_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict, message: str
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("espnet_cif_hkd.inference.recognizer.Speech2Text", None)
    with pytest.raises(UserError, match=message):
        Recognizer(folder, **options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rescore_lm", "x"), "--rescore_lm needs a beam search: add --beam 10"),
        (("--rescore_weight", "1", "--beam", "3"), "--rescore_weight needs"),
    ],
)
def test_options_that_do_not_fit(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    assert transcribe.main(["x.wav", "--model", str(folder), *words]) == 1
    assert message in capsys.readouterr().err
