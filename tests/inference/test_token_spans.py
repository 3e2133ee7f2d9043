"""Start and end of tokens: always in order, and right for peaks at known places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_cif_hkd.inference.assemble import assembled
from espnet_cif_hkd.inference.evidence import Evidence
from espnet_cif_hkd.inference.spans import Timing, token_spans

STRIDE = 0.04
VOCABULARY = 6


def peaky(frames: list[int], ids: list[int], n_frames: int) -> np.ndarray:
    """CTC's log-probabilities with one peak for each token."""
    logp = np.full((n_frames, VOCABULARY), -9.0)
    logp[:, 0] = -0.01
    for frame, token in zip(frames, ids):
        logp[frame, [0, token]] = -9.0, -0.01
    return logp


def heard(frames: list[int], n_frames: int = 50) -> Evidence:
    """Different tokens with peaks in these frames, centred at multiples of 40 ms."""
    ids = [1 + n % 5 for n in range(len(frames))]
    ctc = peaky(frames, ids, n_frames)
    return Evidence(ids, n_frames, 0.0, STRIDE, ctc=ctc)


@given(
    st.data(),
    st.integers(0, 12),
    st.integers(0, 10),
    st.sampled_from(["ctc", "alpha", "both", "nothing"]),
    st.floats(-0.2, 0.4),
    st.floats(0.0, 0.4),
    st.floats(1e-4, 3.0),
)
def test_spans_are_in_order_and_in_the_audio(
    data: st.DataObject,
    n_tokens: int,
    n_frames: int,
    kind: str,
    lead: float,
    trail: float,
    duration: float,
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    alpha = rng.choice([0.0, 0.3, 1.0, 2.5], n_frames)
    ctc = rng.normal(size=(n_frames, VOCABULARY))
    ids = rng.integers(1, VOCABULARY, n_tokens).tolist()
    silent = rng.random(n_tokens) < data.draw(st.sampled_from([0.0, 0.4, 1.0]))
    evidence = Evidence(
        ids,
        n_frames,
        rng.choice([0.0, 0.03]),
        STRIDE,
        alpha if kind in ("alpha", "both") else None,
        ctc if kind in ("ctc", "both") else None,
    )
    spans = token_spans(evidence, silent, Timing(lead, trail), duration)
    assert len(spans) == n_tokens
    symbols = ["▁a"] * n_tokens
    assembled(ids, symbols, [" a"] * n_tokens, spans, duration).validate()


def test_distant_peaks_have_silence_between_them() -> None:
    spans = token_spans(heard([10, 30]), [False, False], Timing(0.05, 0.1), 2.0)
    assert spans == [pytest.approx((0.35, 0.5)), pytest.approx((1.15, 1.3))]


def test_near_peaks_share_a_border_in_the_ratio_of_trail_to_lead() -> None:
    spans = token_spans(heard([10, 15]), [False, False], Timing(0.05, 0.15), 2.0)
    assert spans == [pytest.approx((0.35, 0.55)), pytest.approx((0.55, 0.75))]


def test_a_white_space_is_a_border_at_its_peak_or_takes_the_silence() -> None:
    near = token_spans(heard([10, 11, 13]), [False, True, False], Timing(0.0, 0.1), 2.0)
    assert near[0][1] == pytest.approx(0.44) == near[2][0]
    far = token_spans(heard([10, 11, 30]), [False, True, False], Timing(0.0, 0.1), 2.0)
    assert far[1] == pytest.approx((0.5, 1.2))
    assert far[2][0] == pytest.approx(1.2)


def test_a_peak_may_come_before_its_token() -> None:
    # Tokens of 0.24 s; each peak is 0.08 s too early.
    frames = [5, 11, 17]
    spans = token_spans(heard(frames), [False] * 3, Timing(-0.08, 0.32), 2.0)
    starts = [0.28, 0.52, 0.76]
    assert [start for start, _ in spans] == pytest.approx(starts)
    assert [end for _, end in spans] == pytest.approx([0.52, 0.76, 1.0])


@pytest.mark.parametrize("lead", [-0.08, 0.32])
def test_a_border_is_as_sure_as_the_peak_beside_it(lead: float) -> None:
    """Where a peak is outside of its token, the length of a token does not matter."""
    timing = Timing(lead, 0.24 - lead)
    places = []
    for length in (4, 6, 7):
        spans = token_spans(heard([5, 5 + length]), [False] * 2, timing, 2.0)
        peak = 0.2 + 0.04 * length if lead < 0 else 0.2
        places.append(spans[0][1] - peak)
        assert spans[0][1] == spans[1][0]
    assert places == pytest.approx([0.08 if lead < 0 else -0.08] * 3)


def test_ctc_is_used_before_alpha_and_alpha_without_ctc() -> None:
    alpha = np.zeros(50)
    alpha[[20, 30]] = 1.0
    ctc = peaky([10, 12], [1, 2], 50)
    timing, silent = Timing(0.02, 0.02), [False, False]
    both = Evidence([1, 2], 50, 0.0, STRIDE, alpha, ctc)
    assert token_spans(both, silent, timing, 2.0)[0][0] == pytest.approx(0.38)
    cif = Evidence([1, 2], 50, 0.0, STRIDE, alpha)
    assert token_spans(cif, silent, timing, 2.0) == [
        pytest.approx((0.78, 0.82)),
        pytest.approx((1.18, 1.22)),
    ]


def test_fewer_frames_than_tokens_use_alpha_or_equal_parts() -> None:
    ids, ctc = [1, 2, 3, 4], np.zeros((2, VOCABULARY))
    alpha = np.array([2.0, 2.0])
    spans = token_spans(
        Evidence(ids, 2, 0.02, STRIDE, alpha, ctc), [False] * 4, Timing(), 0.08
    )
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    equal = token_spans(Evidence(ids, 0, 0.0, STRIDE), [False] * 4, Timing(), 1.0)
    assert equal[-1][1] <= 1.0
