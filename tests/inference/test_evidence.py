"""CTC's best path without torch, and positions of sums of alpha."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.inference.evidence import Evidence, best_path
from espnet_cif_hkd.losses.ctc_alignment import ctc_alignment


@pytest.mark.slow
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=6),
    st.integers(1, 12),
    st.integers(0, 10**6),
)
def test_the_path_is_that_of_the_batched_search(
    ids: list[int], n_frames: int, seed: int
) -> None:
    logp = np.random.default_rng(seed).normal(size=(n_frames, 4))
    expected = ctc_alignment(
        torch.tensor(logp)[None].double(),
        torch.tensor([n_frames]),
        torch.tensor([ids]),
        torch.tensor([len(ids)]),
    )[0].tolist()
    path = best_path(logp, ids)
    if path is None:
        assert expected == [-1] * n_frames
    else:
        assert path.tolist() == expected


def test_each_token_has_a_frame_and_equal_neighbours_a_blank_between() -> None:
    path = best_path(np.zeros((3, 4)), [2, 2])
    assert path is not None
    assert path.tolist() == [0, -1, 1]
    assert best_path(np.zeros((2, 4)), [2, 2]) is None
    assert best_path(np.zeros((0, 4)), [2]) is None


@given(st.lists(st.floats(0.0, 1.5), min_size=1, max_size=20))
def test_places_of_whole_sums_are_firing_times(alpha: list[float]) -> None:
    weights = torch.tensor([alpha], dtype=torch.float64)
    fired = integrate_and_fire(
        torch.zeros(1, len(alpha), 1), weights, torch.tensor([len(alpha)]), None, None
    )
    n_fired = int(fired.lengths[0])
    evidence = Evidence([1], len(alpha), 0.0, 1.0, np.array(alpha))
    places = evidence.places(np.arange(1, n_fired + 1))
    times = fired.firing_times[0, :n_fired]
    # Rounding errors of a sum may be a place apart where alpha is almost 0.
    total = evidence.running_sum
    assert total is not None
    frames = np.arange(len(total))
    np.testing.assert_allclose(
        np.interp(places, frames, total), np.interp(times, frames, total), atol=1e-6
    )


def test_a_sum_that_stands_still_is_reached_at_its_beginning() -> None:
    evidence = Evidence([1], 5, 0.0, 1.0, np.array([0.5, 0.5, 0.0, 0.0, 0.5]))
    assert evidence.places([0.25, 1.0, 1.25, 9.0]).tolist() == [0.5, 2.0, 4.5, 5.0]


def test_seconds_of_positions() -> None:
    evidence = Evidence([1], 5, 0.03, 0.04)
    np.testing.assert_allclose(evidence.seconds([0.5, 2.0]), [0.03, 0.09])
