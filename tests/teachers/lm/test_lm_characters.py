"""The next character from longer tokens, against a recursion over all coverings."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_hf_lm import build_causal, build_masked

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm import characters
from espnet_cif_hkd.teachers.lm.characters import NextCharacter, TokenTexts, codes_of
from espnet_cif_hkd.teachers.lm.hf_tokens import token_texts
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher

CPU = torch.device("cpu")
LETTERS = ["<blank>", "<unk>", *"acehst", "<space>", "<sos/eos>"]
ITEMS = ["the cat", "", "c", "test these sheets", "hhh"]


@pytest.fixture
def exact(monkeypatch):
    """Coverings of all shares count."""
    monkeypatch.setattr(characters, "_SMALL", 0.0)


def ids_of(text):
    return [LETTERS.index("<space>" if c == " " else c) for c in text]


def naive(probabilities, texts, text, alphabet):
    """Masses of the characters after ``text``, by recursion.

    ``probabilities`` maps the text before a token to a probability of each token.
    """

    def ending(end):
        """Return the probability that ``text[:end]`` is a number of tokens."""
        if not end:
            return 1.0
        return sum(
            ending(begin) * share
            for begin in range(end)
            for n, share in probabilities(text[:begin]).items()
            if texts[n] == text[begin:end]
        )

    found = {
        c: sum(
            ending(begin) * share
            for begin in range(len(text) + 1)
            for n, share in probabilities(text[:begin]).items()
            if texts[n].startswith(text[begin:] + c)
        )
        for c in alphabet
    }
    return {c: mass / sum(found.values()) for c, mass in found.items()}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("abx", min_size=1, max_size=4), min_size=1, max_size=8),
    st.text("ab", max_size=6),
    st.integers(0, 99),
)
def test_coverings_equal_a_recursion(tokens, text, seed):
    texts = dict(enumerate([*tokens, "a", "b"]))

    def probabilities(before):
        number = int.from_bytes(before.encode(), "big")
        drawn = np.random.default_rng([seed, number]).random(len(texts)) + 0.01
        return dict(enumerate(drawn / drawn.sum()))

    codes = codes_of("ab")
    table = TokenTexts(texts, codes)
    state = NextCharacter(table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(characters, "_SMALL", 0.0)
        for n in range(len(text) + 1):
            if state.ending:
                shares = probabilities(text[:n])
                state.add(np.array([shares[i] for i in table.ids]))
            masses = state.masses()
            found = {c: masses[codes[c]] for c in "ab"}
            total = sum(found.values())
            expected = naive(probabilities, texts, text[:n], "ab")
            assert {c: m / total for c, m in found.items()} == pytest.approx(expected)
            if n < len(text):
                state.advance(codes[text[n]])


def test_a_character_that_no_token_has_starts_again():
    state = NextCharacter(TokenTexts({0: "ab"}, codes_of("abc")))
    state.add(np.ones(1))
    state.advance(codes_of("abc")["c"])
    assert state.ending == 1
    assert not state.masses().any()


@pytest.fixture(scope="module", params=["bytes", "xlmr", "metaspace-always"])
def folder(request, tmp_path_factory):
    return build_causal(tmp_path_factory.mktemp("lm") / "lm", request.param)


def teacher(folder, tokens=LETTERS, **options):
    conf = {"lm": folder, "lm_type": "hf_characters", "top_k": 99, **options}
    return build_lm_teacher(conf, tokens)


def distributions(made, items):
    targets = made.targets(items, CPU)
    pairs = zip(*targets.tensors.values(), strict=True)
    return [dict(zip(i.tolist(), p.tolist(), strict=True)) for i, p in pairs]


def test_labels_equal_the_recursion(folder, exact):
    made = teacher(folder, temperature=1.0)
    rows = iter(distributions(made, [ids_of(text) for text in ITEMS]))
    model, (tokenizer, units) = copy.deepcopy(made.open()).double(), made.tokens()
    texts, _ = token_texts(tokenizer)
    lead = " " if units.leads else ""
    known = {}

    def probabilities(before):
        if before not in known:
            ids = tokenizer.encode(before[len(lead) :], add_special_tokens=False)
            if lead and before == lead:
                ids = [n for n, own in texts.items() if own == " "]
            with torch.no_grad():
                output = model(input_ids=torch.tensor([[tokenizer.bos_token_id, *ids]]))
            # Only tokens that begin with a character of the unit may follow.
            ids = [n for n, text in texts.items() if text[0] in "acehst "]
            shares = output.logits[0, -1, ids].softmax(0).tolist()
            known[before] = dict(zip(ids, shares, strict=True))
        return known[before]

    for text in ITEMS:
        for n in range(len(text)):
            alphabet = {("<space>" if c == " " else c): c for c in "acehst "}
            found = naive(probabilities, texts, lead + text[:n], alphabet.values())
            row = next(rows)
            for label, character in alphabet.items():
                wanted = 0.9999 * found[character] + 1e-4 / 7
                assert row[LETTERS.index(label)] == pytest.approx(wanted, abs=1e-5)


def test_rare_coverings_may_be_left_out(folder):
    made = teacher(folder, temperature=1.0)
    found = distributions(made, [ids_of("the cats chest")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(characters, "_SMALL", 0.0)
        exact = distributions(made, [ids_of("the cats chest")])
    for row, wanted in zip(found, exact, strict=True):
        assert row == pytest.approx(wanted, abs=0.02)


def test_companions_have_no_influence(folder):
    made = teacher(folder)
    items = [ids_of(text) for text in ITEMS]
    together = iter(distributions(made, items))
    for item in items:
        for row in distributions(made, [item]):
            assert next(together) == pytest.approx(row, abs=1e-5)
    assert made.targets([], CPU).sizes == []


def test_capitals_count_for_small_letters(folder):
    upper = [token.upper() if len(token) == 1 else token for token in LETTERS]
    tokenizer, found = teacher(folder, upper).tokens()
    _, small = teacher(folder).tokens()
    capital = tokenizer.get_vocab().get("T")
    assert (capital in found.ids) == (capital is not None)
    assert capital not in small.ids
    assert set(small.ids) <= set(found.ids)
    assert found.contexts(ids_of("cat"), 9) == small.contexts(ids_of("cat"), 9)


def test_unknown_characters_restart_and_missing_ones_are_reported(folder):
    made = teacher(folder, [*LETTERS[:-1], "我", "<sos/eos>"])
    known, unknown = ids_of("cat"), len(LETTERS) - 1
    assert made.examine([known]) == []
    assert made.examine([[*known, unknown]]) == ["no token has 1 characters (我)"]
    rows = distributions(made, [[*known, 1, unknown, *known]])
    assert len(rows) == 8
    for row in rows:
        assert sum(row.values()) == pytest.approx(1, abs=1e-5)


def test_a_long_sentence_is_cut_at_the_front(tmp_path):
    made = teacher(build_causal(tmp_path, positions=6))
    item = ids_of("these sheets the cats taste at the chest")
    assert len(distributions(made, [item])) == len(item)


def test_other_units_and_lms_are_refused(folder, tmp_path):
    words = ["<blank>", "<unk>", "▁the", "s", "<sos/eos>"]
    with pytest.raises(UserError, match="but the unit is bpe; use lm_type hf_causal"):
        teacher(folder, words).check()
    chinese = ["<blank>", "<unk>", "我", "们", "<sos/eos>"]
    with pytest.raises(UserError, match="its tokens have no spaces"):
        teacher(build_masked(tmp_path), chinese).check()
