"""The controls: labels without knowledge."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from tiny_lm import TOKENS, encode

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm.controls import count_units
from espnet_cif_hkd.teachers.lm.labels import label_ids
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher

CPU = torch.device("cpu")
ITEMS = [encode("abc a"), [], encode("g"), encode("a?")]
N_LABELS = len(label_ids(TOKENS))


def uniform(**options):
    return build_lm_teacher({"lm_type": "uniform", **options}, TOKENS)


def test_uniform_labels_are_k_different_labels_of_equal_probability():
    targets = uniform(top_k=3).targets(ITEMS, CPU)
    assert targets.sizes == [5, 0, 1, 2]
    ids, shares = targets.tensors["ids"], targets.tensors["probabilities"]
    assert ids.dtype == torch.int64 and ids.shape == shares.shape == (8, 3)
    assert torch.equal(shares, torch.full((8, 3), 1 / 3))
    for row in ids.tolist():
        assert len(set(row)) == 3 and set(row) <= set(label_ids(TOKENS).tolist())


def test_every_label_is_drawn_equally_often():
    """The mean over many sentences is the uniform distribution over all labels."""
    rng = np.random.default_rng(0)
    items = [rng.integers(2, 9, 40).tolist() for _ in range(250)]
    ids = uniform(top_k=2).targets(items, CPU).tensors["ids"]
    counts = Counter(ids.flatten().tolist())
    expected = ids.numel() / N_LABELS
    assert set(counts) == set(label_ids(TOKENS).tolist())
    deviation = math.sqrt(expected)
    assert all(abs(n - expected) < 5 * deviation for n in counts.values())


def test_the_draw_depends_on_sentence_position_and_seed_only():
    made = uniform(top_k=2)
    together = made.targets(ITEMS, CPU).tensors["ids"]
    alone = [made.targets([item], CPU).tensors["ids"] for item in ITEMS]
    assert torch.equal(torch.cat(alone), together)
    assert not torch.equal(together[0], together[4])  # two times "a"
    other = uniform(top_k=2, lm_conf={"seed": 2}).targets(ITEMS, CPU).tensors["ids"]
    assert not torch.equal(other, together)


def test_uniform_over_all_labels():
    made = uniform(top_k=100)
    targets, logs = made.evaluate(ITEMS, CPU)
    for row in targets.tensors["ids"].tolist():
        assert sorted(row) == label_ids(TOKENS).tolist()
    assert torch.allclose(logs, torch.tensor(-math.log(N_LABELS)))
    found = [one for _, part in made.logits(ITEMS, CPU) for one in part]
    assert len(found) == 8 and not torch.stack(found).any()


@pytest.fixture
def counts(tmp_path):
    path = tmp_path / "counts" / "unigram.txt"
    items = iter([encode("aaab?"), [], encode("a b")])
    found = count_units(path, TOKENS, items)
    assert found == {"a": 4, "b": 2, "<space>": 1}
    assert path.read_text() == "a 4\nb 2\n<space> 1\n"
    return path


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 3), (3.0, 8)])
def test_unigram_labels_are_the_smoothed_counts(counts, temperature, top_k):
    conf = {"lm_type": "unigram", "lm": str(counts), "top_k": top_k}
    made = build_lm_teacher({**conf, "temperature": temperature}, TOKENS)
    targets, logs = made.evaluate(ITEMS, CPU)
    number = {"a": 5, "b": 3, "<space>": 2}
    plus_one = {n: number.get(TOKENS[n], 1) for n in label_ids(TOKENS).tolist()}
    total = sum(plus_one.values())
    heated = {n: (c / total) ** (1 / temperature) for n, c in plus_one.items()}
    ids, shares = targets.tensors["ids"], targets.tensors["probabilities"]
    assert ids[0, :3].tolist() == [TOKENS.index(t) for t in number]
    assert (ids == ids[0]).all() and (shares == shares[0]).all()
    kept = sum(heated[n] for n in ids[0].tolist())
    wanted = [heated[n] / kept for n in ids[0].tolist()]
    assert shares[0].tolist() == pytest.approx(wanted, abs=1e-6)
    assert float(logs[0]) == pytest.approx(math.log(5 / total))


def test_the_fingerprint_of_counts_is_their_content(counts, tmp_path):
    made = build_lm_teacher({"lm_type": "unigram", "lm": str(counts)}, TOKENS)
    first = made.fingerprint()
    counts.write_text("a 3\n")
    assert made.fingerprint() != first
    counts.unlink()
    assert made.fingerprint() is None


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "the counts cannot be read .*; set label_store.* cli.prepare_levels"),
        ("a 3\nz 1\n", "line 2: 'z 1' is not a label of the unit and its count"),
        ("<unk> 3\n", "line 1: '<unk> 3' is not a label"),
        ("a x\n", "line 1: 'a x' is not a label"),
        ("a\n", "line 1: 'a' is not a label"),
    ],
)
def test_wrong_counts_are_refused(tmp_path, content, match):
    path = tmp_path / "counts"
    if content is not None:
        path.write_text(content)
    made = build_lm_teacher({"lm_type": "unigram", "lm": str(path)}, TOKENS)
    with pytest.raises(UserError, match=match):
        made.check()


@pytest.mark.parametrize("seed", [1.5, True, "x"])
def test_a_wrong_seed_is_refused(seed):
    with pytest.raises(UserError, match=r"lm_conf.seed is .*; set it to an"):
        uniform(lm_conf={"seed": seed})
