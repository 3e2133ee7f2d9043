"""A language model that chooses among the hypotheses of the beam search."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from tiny_hf_lm import build_causal, build_masked
from tiny_model import tiny_config, tiny_model
from tiny_speech import CHANGES, RATE, noise

from espnet_cif_hkd import UserError
from espnet_cif_hkd.cli import transcribe
from espnet_cif_hkd.inference.nbest import WEIGHT
from espnet_cif_hkd.inference.recognition import Recognition
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
    sums = {"rescore_lm": "causal", "rescore_weight": 3.0, "rescore_bonus": 0.5}
    chosen = Recognizer(folder, **sums, **beam)
    scorer = SentenceScorer("causal")
    scorer.settle_case(chosen.tokens)
    texts = [one.text for one in plain.nbest]
    expected = sorted(
        zip(plain.nbest, scorer(texts), strict=True),
        key=lambda pair: -(pair[0].score + 3.0 * pair[1] + 0.5 * len(pair[0].tokens)),
    )
    found = chosen.recognise(noise(0.5)).validate()
    assert found.nbest == tuple(one for one, _ in expected)
    assert [one.text for one in found.nbest] != texts
    assert found.text == found.nbest[0].text
    first = Recognizer(folder, greedy=False, beam_size=4, **sums)
    assert first.recognise(noise(0.5)).nbest == ()
    assert first.recognise(noise(0.5)).text == found.text
    assert first.recognise(noise(0.0)).text == ""


@pytest.mark.slow
def test_a_state_of_long_audio_belongs_to_the_weight(
    folder: Path, tmp_path: Path
) -> None:
    def passages(**options: float) -> Iterator[Recognition]:
        lm = str(folder / "causal")
        one = Recognizer(folder, greedy=False, beam_size=2, rescore_lm=lm, **options)
        audio, state = noise(0.5), tmp_path / "state.npz"
        return one.long(lambda start, end: audio, 0.5, state=state)

    run = passages()
    next(run)
    run.close()
    for options in ({"rescore_weight": 0.7}, {"rescore_bonus": 0.1}):
        with pytest.raises(UserError, match="another audio, model or of other options"):
            next(passages(**options))
    assert len(list(passages())) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rescore_lm": "causal"}, "greedy=False and a beam_size of 2 or more"),
        ({"rescore_lm": "causal", "greedy": False, "beam_size": 1}, "greedy=False"),
        ({"rescore_lm": "none/such", "greedy": False}, "lm_revision"),
        ({"rescore_lm": "a/b/c@1", "greedy": False}, "this folder does not exist"),
        (
            {"rescore_lm": "causal", "greedy": False, "rescore_bonus": float("nan")},
            "rescore_bonus is nan",
        ),
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


@pytest.mark.slow
def test_the_command_passes_its_options_on(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder with ``@``, relative to the working folder; a second call is done."""
    given = []

    class Recorded(Recognizer):
        def __init__(self, *args: object, **options: object) -> None:
            given.append(options)
            super().__init__(*args, **options)

    monkeypatch.setattr("espnet_cif_hkd.inference.recognizer.Recognizer", Recorded)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "causal", tmp_path / "lm@1")
    soundfile.write("a.wav", noise(0.5), RATE)
    words = ["a.wav", "--model", str(folder), "-o", "out", "--beam", "3", "--quiet"]
    rescored = [*words, "--rescore_lm", "lm@1", "--rescore_bonus", "0.25"]
    assert transcribe.main(rescored) == 0
    (options,) = given
    assert options["beam_size"] == 3 and options["rescore_weight"] == WEIGHT
    assert options["rescore_lm"] == str(tmp_path / "lm@1")
    assert options["rescore_bonus"] == 0.25
    assert transcribe.main([*rescored, "--rescore_weight", str(WEIGHT)]) == 0
    assert len(given) == 1
    assert transcribe.main(words) == 1
    assert "has results with rescore_lm" in capsys.readouterr().err
