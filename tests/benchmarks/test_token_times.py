"""The measures of benchmarks/token_times.py on cases computed by hand."""

import pytest
import token_times
import torch


def test_a_token_of_one_frame_and_one_of_many() -> None:
    alpha = torch.tensor([1.0, 0.25, 0.25, 0.25, 0.25])
    assert token_times.spread(alpha) == pytest.approx([1.0, 4.0])


def test_a_frame_that_two_tokens_share() -> None:
    # 0.8 and 0.2; 0.6 and 0.4.
    alpha = torch.tensor([0.8, 0.8, 0.4])
    expected = [1 / (0.8**2 + 0.2**2), 1 / (0.6**2 + 0.4**2)]
    assert token_times.spread(alpha) == pytest.approx(expected)


def test_peaks_are_the_first_frames_of_tokens() -> None:
    assert token_times.peaks([0, 5, 5, 0, 5, 7, 7, 0]) == [1, 4, 5]
    assert token_times.peaks([3, 3, 0]) == [0]
    assert token_times.peaks([0, 0]) == []
