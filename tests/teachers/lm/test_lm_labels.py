"""Labels of ESPnet's language models against a loop in float64."""

import copy
import functools
import math
import pickle

import pytest
import torch
from tiny_lm import CONF, TOKENS, build_tiny_lm, encode

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm.batches import windows
from espnet_cif_hkd.teachers.lm.labels import SPECIALS, our_names
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher, lm_choices

CPU = torch.device("cpu")
SENTENCES = ["abc a", "g", "", "ab?a", "cab cab cab", "", "d"]
ITEMS = [encode(text) for text in SENTENCES]
LABELS = [n for n, token in enumerate(TOKENS) if token not in SPECIALS]


@pytest.fixture(scope="module", params=sorted(CONF))
def lm(request, tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp(request.param) / "lm", request.param)


def teacher(lm, **options):
    return build_lm_teacher({"lm": lm, **options}, TOKENS)


def distribution(lm, prefix):
    """The LM's log-probabilities after a prefix, float64, by one run without padding.

    ``<blank>``, ``<unk>`` and ``<sos/eos>`` are removed before the softmax.
    """
    return _distribution(lm, tuple(prefix))


@functools.cache
def _distribution(lm, prefix):
    sos = len(TOKENS) - 1
    with torch.no_grad():
        output, _ = _precise(lm)(torch.tensor([[sos, *prefix]]), None)
    return output[0, -1]


@functools.cache
def _precise(lm):
    return copy.deepcopy(teacher(lm).open()).double()


def naive(lm, items, temperature, top_k):
    """The K best labels of each unit, by loops over units and labels."""
    rows = []
    for ids in items:
        for n in range(len(ids)):
            logits = distribution(lm, ids[:n])
            shares = {k: math.exp(float(logits[k]) / temperature) for k in LABELS}
            total = sum(shares.values())
            best = sorted(LABELS, key=lambda k: -shares[k])[:top_k]
            kept = sum(shares[k] / total for k in best)
            rows.append({k: shares[k] / total / kept for k in best})
    return rows


def rows_of(targets):
    ids, shares = targets.tensors["ids"], targets.tensors["probabilities"]
    return [dict(zip(i.tolist(), p.tolist())) for i, p in zip(ids, shares)]


@pytest.mark.parametrize(("temperature", "top_k"), [(3.0, 3), (1, 1), (0.5, 8)])
def test_labels_equal_a_loop(lm, temperature, top_k):
    made = teacher(lm, temperature=temperature, top_k=top_k)
    targets = made.targets(ITEMS, CPU)
    assert targets.sizes == [len(item) for item in ITEMS]
    assert targets.tensors["ids"].dtype == torch.int64
    shares = targets.tensors["probabilities"]
    assert shares.dtype == torch.float32 and shares.shape[1] == top_k
    assert (shares.diff(dim=1) <= 0).all()
    expected = naive(lm, ITEMS, temperature, top_k)
    for row, wanted in zip(rows_of(targets), expected, strict=True):
        assert row.keys() == wanted.keys() and not row.keys() & {0, 1, len(TOKENS) - 1}
        assert row == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("top_k", [len(LABELS), len(LABELS) + 1, 10_000])
def test_k_from_the_number_of_labels_on_is_the_full_distribution(lm, top_k):
    made = teacher(lm, temperature=2.0, top_k=top_k)
    assert made.payload.width == len(LABELS)
    targets = made.targets(ITEMS, CPU)
    rows = iter(rows_of(targets))
    for ids in ITEMS:
        for n in range(len(ids)):
            full = (distribution(lm, ids[:n])[LABELS] / 2.0).softmax(0)
            wanted = dict(zip(LABELS, full.tolist()))
            assert next(rows) == pytest.approx(wanted, abs=1e-5)


def test_defaults(lm):
    described = teacher(lm).describe()
    assert (described["temperature"], described["top_k"]) == (3.0, 8)


def test_companions_and_padding_have_no_influence(lm):
    made = teacher(lm, top_k=8)
    together = iter(rows_of(made.targets(ITEMS, CPU)))
    for ids in ITEMS:
        for row in rows_of(made.targets([ids], CPU)):
            assert next(together) == pytest.approx(row, abs=1e-6)
    assert next(together, None) is None


@pytest.mark.parametrize("items", [[], [[]], [[], []], [[2]]])
def test_empty_and_one_unit_texts(lm, items):
    made = teacher(lm)
    targets = made.targets(items, CPU)
    rows = sum(map(len, items))
    assert targets.sizes == [len(item) for item in items]
    assert targets.tensors["ids"].shape == (rows, 8)
    if rows:
        assert rows_of(targets)[0] == pytest.approx(naive(lm, items, 3.0, 8)[0])


def test_the_probability_of_the_units_is_that_at_temperature_one(lm):
    made = teacher(lm, temperature=5.0)
    targets, logs = made.evaluate(ITEMS, CPU)
    plain = made.targets(ITEMS, CPU)
    assert torch.equal(targets.tensors["ids"], plain.tensors["ids"])
    at = 0
    for ids in ITEMS:
        for n, unit in enumerate(ids):
            if unit in LABELS:
                full = distribution(lm, ids[:n])[LABELS].log_softmax(0)
                wanted = float(full[LABELS.index(unit)])
                assert float(logs[at]) == pytest.approx(wanted, abs=1e-5)
            at += 1


def test_autocast_of_the_student_changes_nothing(lm):
    made = teacher(lm)
    plain = made.targets(ITEMS, CPU).tensors["probabilities"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = made.targets(ITEMS, CPU).tensors["probabilities"]
    assert torch.equal(plain, mixed)
    assert not plain.is_inference()


def test_opening_an_lm_leaves_the_random_numbers_and_copies_open_it_again(lm):
    made = teacher(lm)
    torch.manual_seed(0)
    made.open()
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    copied = pickle.loads(pickle.dumps(made))
    assert copied._opened is None
    assert rows_of(copied.targets(ITEMS, CPU)) == rows_of(made.targets(ITEMS, CPU))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"temperature": 0}, "temperature is 0; set it to a number > 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": True}, "temperature is True"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_k": 0}, "top_k is 0; set it to an integer >= 1"),
        ({"top_k": 2.5}, r"top_k is 2.5"),
        ({"lm_type": "bigram"}, "lm_type is 'bigram'; use one of espnet, hf_causal"),
        ({"lm": None}, "lm is not set; name a folder"),
        ({"lm_conf": {"seed": 1}}, "lm_type espnet has no option 'seed'"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options, match):
    with pytest.raises(UserError, match=match) as error:
        build_lm_teacher({"lm": "exp/lm", **options}, TOKENS)
    assert "\n" not in str(error.value)


def test_a_token_list_without_labels_is_refused():
    with pytest.raises(UserError, match="the unit has no labels"):
        build_lm_teacher({"lm_type": "uniform"}, ["<blank>", "<unk>", "<sos/eos>"])
    with pytest.raises(UserError, match="the unit has no labels"):
        build_lm_teacher({"lm_type": "uniform"}, [])


def test_a_user_can_register_an_lm():
    assert set(lm_choices.choices()) >= {"espnet", "hf_causal", "hf_masked"}
    lm_choices.classes["wrong"] = dict
    try:
        with pytest.raises(UserError, match=r"is no subclass of .*LMTeacher"):
            build_lm_teacher({"lm_type": "wrong"}, TOKENS)
    finally:
        del lm_choices.classes["wrong"]


def test_messages_have_our_names_but_paths_are_kept():
    text = "teacher_store /a/teacher_store: teacher x: set criterion_conf.teacher"
    with pytest.raises(UserError) as error, our_names():
        raise UserError(text)
    assert str(error.value) == "label_store /a/teacher_store: lm x: set lm"


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 8, 9, 20])
def test_windows_cover_every_unit_once(length, limit):
    least = limit - max(1, limit // 2)
    for lead in range(least + 1):
        covered = []
        for start, begin, end in windows(length, limit, lead):
            assert start >= 0 and 0 <= begin < end <= min(limit, length - start)
            assert begin >= lead or start == 0
            covered += range(start + begin, start + end)
        assert covered == list(range(length))
