"""Features of gaps against a loop, and warnings from them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_cif_hkd.inference.evidence import Evidence
from espnet_cif_hkd.inference.gaps import FEATURES, features, flags, surplus

SPANS = [(0.08, 0.2), (0.2, 0.4), (0.4, 0.5)]


def evidence(peaks: list[int], alpha: np.ndarray | None = None) -> Evidence:
    """CTC has probability 0.5 for its token at each peak, else blank."""
    ids = [1 + n % 2 for n in range(len(peaks))]
    ctc = np.full((20, 4), math.log(0.005))
    ctc[:, 0] = math.log(0.985)
    ctc[peaks] = math.log(0.1)
    ctc[peaks, ids] = math.log(0.7)
    return Evidence(ids, 20, 0.0, 0.04, alpha, ctc)


def by_loop(one: Evidence) -> np.ndarray:
    """The definition, frame by frame."""
    assert one.path is not None and one.ctc is not None
    p, path, n_tokens = np.exp(one.ctc), one.path.tolist(), len(one.ids)
    n_frames, n_units = p.shape
    of = [[t for t in range(n_frames) if path[t] == u] for u in range(n_tokens)]

    def middle(u: int) -> float:
        if u < 0 or u >= n_tokens:
            return 0.0 if u < 0 else float(n_frames)
        return sum(of[u]) / len(of[u]) + 0.5

    rows = []
    for gap in range(n_tokens + 1):
        start = of[gap - 1][-1] + 1 if gap else 0
        end = of[gap][0] if gap < n_tokens else n_frames
        near = {0, *one.ids[max(gap - 1, 0) : gap + 1]}
        others = [v for v in range(n_units) if v not in near]
        free = sum(p[t, v] for t in range(start, end) for v in others)
        expected = 0.0
        for t in range(n_frames):
            begin, stop = max(t, middle(gap - 2)), min(t + 1, middle(gap + 1))
            last = p[t - 1] if t else np.zeros(n_units)
            rise = sum(max(p[t, v] - last[v], 0.0) for v in range(1, n_units))
            expected += rise * max(stop - begin, 0.0)
        best = [0, *p.argmax(axis=1).tolist()]
        begun = sum(
            middle(gap - 1) <= t < middle(gap) and best[t + 1] not in (0, best[t])
            for t in range(n_frames)
        )
        rows.append(
            [
                math.log1p(free),
                expected - (gap > 0) - (gap < n_tokens),
                end - start,
                begun - (gap < n_tokens),
            ]
        )
    return np.array(rows)


@given(st.integers(1, 12), st.lists(st.integers(1, 4), max_size=5), st.integers(0, 99))
def test_features_equal_the_loop(n_frames: int, ids: list[int], seed: int) -> None:
    logits = 3 * np.random.default_rng(seed).normal(size=(n_frames, 5))
    ctc = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    one = Evidence(ids, n_frames, 0.0, 0.04, ctc=ctc)
    found = features(one)
    if found is None:
        assert one.path is None
        return
    assert found.shape == (len(ids) + 1, len(FEATURES))
    np.testing.assert_allclose(found, by_loop(one), atol=1e-9)


def test_alpha_that_fits_gives_no_warning() -> None:
    alpha = np.zeros(20)
    alpha[[2, 6, 10, 14]] = 1.0  # the last one for <eos>
    assert surplus(evidence([2, 6, 10], alpha)) == pytest.approx([0.0] * 4)
    assert flags(evidence([2, 6, 10], alpha), SPANS) == []
    assert flags(evidence([2, 6, 10]), SPANS) == []


@pytest.mark.parametrize(("more", "kind"), [(2.0, "missing"), (-2.0, "extra")])
def test_more_or_less_alpha_is_reported_where_it_is(more: float, kind: str) -> None:
    alpha = np.zeros(20)
    alpha[[2, 6, 10, 14]] = 1.0
    alpha[[6, 10]] += min(more / 2, 0.0)
    alpha[8] = max(more, 0.0)
    [flag] = flags(evidence([2, 6, 10], alpha), SPANS)
    assert flag.kind == kind
    assert flag.value == pytest.approx(more)
    assert flag.start <= 0.32 <= flag.end


def test_a_token_that_only_ctc_knows_is_reported_there() -> None:
    """With weights: no CIF is needed; the value is a probability."""
    one = evidence([2, 6, 14])
    assert one.ctc is not None
    weights = [-4.0, 8.0, 0.0, 0.0, 0.0]
    assert flags(one, SPANS, weights) == []
    one.ctc[10] = np.log([0.1, 0.05, 0.05, 0.8])
    [flag] = flags(one, SPANS, weights)
    assert (flag.kind, flag.start, flag.end) == ("missing", 0.2, 0.5)
    assert 0.5 < flag.value < 1
    assert flags(one, SPANS, weights, limit=3.0) == []


def test_without_ctc_or_with_too_few_frames_there_is_no_warning() -> None:
    none = Evidence([1, 2], 4, 0.0, 0.04, alpha=np.ones(4))
    few = Evidence([1, 2], 1, 0.0, 0.04, np.ones(1), np.zeros((1, 3)))
    for one in (none, few, Evidence([], 0, 0.0, 0.04)):
        assert features(one) is None
        assert flags(one, SPANS[:2], [9.0, 0, 0, 0, 0]) == []
