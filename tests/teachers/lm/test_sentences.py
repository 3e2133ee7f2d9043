"""Scores of sentences against a loop over the tokens in float64."""

import pytest
import torch
from tiny_hf_lm import build_causal, build_masked

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm import sentences
from espnet_cif_hkd.teachers.lm.batches import windows
from espnet_cif_hkd.teachers.lm.sentences import SentenceScorer

TEXTS = ["the cat", "", "the cast", "a", "the cat sat at the seas", "the cat"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("lm")
    return {
        "causal": build_causal(top / "causal"),
        "short": build_causal(top / "short", positions=8),
        "masked": build_masked(top / "masked"),
    }


def naive(folder, text, limit=1000):
    """One run for each token, of the window that it is in."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    total = 0.0
    for start, begin, end in windows(len(ids), limit, limit // 2):
        for n in range(start + begin, start + end):
            read = [tokenizer.bos_token_id, *ids[start:n]]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([read])).logits[0, -1]
            total += float(logits.log_softmax(0)[ids[n]])
    return total


def test_scores_equal_a_naive_loop(folders):
    scorer = SentenceScorer(folders["causal"])
    expected = [naive(folders["causal"], text) for text in TEXTS]
    assert scorer(TEXTS) == pytest.approx(expected, abs=1e-4)
    assert expected[1] == 0.0 > expected[0]
    assert scorer([]) == [] and scorer([""]) == [0.0]


def test_companions_have_no_influence(folders, monkeypatch):
    scorer = SentenceScorer(folders["causal"])
    alone = [scorer([text])[0] for text in TEXTS]
    assert scorer(TEXTS) == pytest.approx(alone, abs=1e-5)
    monkeypatch.setattr(sentences, "run_units", lambda device: 1)  # one text a run
    assert scorer(TEXTS) == pytest.approx(alone, abs=1e-5)


def test_a_large_vocabulary_shortens_the_windows(folders, monkeypatch):
    monkeypatch.setattr(sentences, "places_in_memory", lambda model: 8)
    monkeypatch.setattr(sentences, "_SHORTEST_WINDOW", 1)
    text = "a cat sat at the sea, the cast has a hat"
    (found,) = SentenceScorer(folders["causal"])([text])
    assert found == pytest.approx(naive(folders["causal"], text, 8), abs=1e-4)


def test_a_long_text_is_read_in_windows(folders):
    text = "a cat sat at the sea, the cast has a hat"
    found = SentenceScorer(folders["short"])([text, "a"])
    assert found[0] == pytest.approx(naive(folders["short"], text, 8), abs=1e-4)


@pytest.mark.parametrize(
    ("case", "texts", "lower"),
    [
        ("auto", ["THE CAT", "1", ""], True),
        ("auto", ["THE CAT", "a"], False),
        ("auto", ["THE <unk>AT"], True),
        ("auto", ["水 1"], False),
        ("lower", ["The cat"], True),
        ("keep", ["THE CAT"], False),
    ],
)
def test_capitals(folders, case, texts, lower):
    scorer = SentenceScorer(folders["causal"], case=case)
    scorer.settle_case(texts)
    assert scorer.case == ("lower" if lower else "keep")
    plain = SentenceScorer(folders["causal"], case="keep")
    expected = plain([text.lower() if lower else text for text in texts])
    assert scorer(texts) == pytest.approx(expected)
    assert (scorer.identity() == plain.identity()) == (not lower)


def test_refused_in_one_line(folders, tmp_path):
    with pytest.raises(UserError, match=r"is no causal LM; choose another LM$"):
        SentenceScorer(folders["masked"]).open()
    with pytest.raises(UserError, match="this folder does not exist"):
        SentenceScorer(str(tmp_path / "none"))
    with pytest.raises(UserError, match="case: 'upper' is unknown"):
        SentenceScorer(folders["causal"], case="upper")
