"""Pairs of student and teacher frames: a table, and a loop over frames."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.distill.time_matching import MATCHES, TimeMatch
from espnet_cif_hkd.encoder.frames import INPUT_WINDOWS, centre_of_first
from espnet_cif_hkd.errors import UserError

WHISPER = FrameTimes(0.0, 0.02)
HUBERT = FrameTimes(0.0125, 0.02)


def student(input_layer, hop, rate=16000, pooled=0):
    """Times of a student's frames; tests/encoder/test_geometry.py measures them."""
    offset, stride = centre_of_first(INPUT_WINDOWS[input_layer] + ((2, 2),) * pooled)
    return FrameTimes(offset * hop / rate, stride * hop / rate)


# Front end -> position of its frames 0 and 100 in frames of Whisper and of HuBERT.
TABLE = {
    ("conv2d", 160, 16000, 0): ((1.5, 201.5), (0.875, 200.875)),
    ("conv2d2", 160, 16000, 0): ((1.5, 101.5), (0.875, 100.875)),
    ("conv2d6", 160, 16000, 0): ((2.5, 302.5), (1.875, 301.875)),
    ("conv2d8", 160, 16000, 0): ((3.5, 403.5), (2.875, 402.875)),
    ("conv2d", 128, 16000, 0): ((1.2, 161.2), (0.575, 160.575)),  # ESPnet's default
    ("conv2d6", 128, 16000, 0): ((2.0, 242.0), (1.375, 241.375)),
    ("conv2d8", 128, 16000, 0): ((2.8, 322.8), (2.175, 322.175)),
    ("conv2d_stride2", 160, 16000, 0): ((0.5, 100.5), (-0.125, 99.875)),
    ("conv2d_stride2", 160, 16000, 1): ((1.0, 201.0), (0.375, 200.375)),
    ("conv2d_stride2", 220, 11025, 0): ((0.9977, 200.5442), (0.3727, 199.9192)),
}


@pytest.mark.parametrize("front_end", TABLE, ids=str)
def test_positions_of_frames_in_those_of_two_teachers(front_end):
    """A frame learns the two teacher frames around its centre, nearer ones more."""
    layer, *numbers = front_end
    frames = student(layer, *numbers)
    for teacher, positions in zip((WHISPER, HUBERT), TABLE[front_end], strict=True):
        matches = TimeMatch("time", frames, teacher).match([101], [500])
        # The vector of teacher frame j is j, so an interpolation is a position.
        found = matches.targets(torch.arange(500.0)[:, None]).flatten()
        by_frame = dict(zip(matches.frames.tolist(), found.tolist(), strict=True))
        for frame, position in zip((0, 100), positions, strict=True):
            if position < 0:
                assert frame not in by_frame
            else:
                assert by_frame[frame] == pytest.approx(position, abs=1e-4)


def naive(kind, frames, teacher, delay, lens, vectors):
    """Targets by utterance and frame: a loop over teacher frames."""
    found = {}
    for b, (count, rows) in enumerate(zip(lens, vectors, strict=True)):
        for k in range(count):
            centre = frames.offset + k * frames.stride
            times = [teacher.offset + j * teacher.stride for j in range(-200, 400)]
            if kind == "mean":
                half = frames.stride / 2 - 1e-8
                chosen = [
                    j - 200
                    for j, time in enumerate(times)
                    if centre - half - 2e-8 <= time < centre + half
                ]
                weights = [1 / len(chosen)] * len(chosen) if chosen else []
            elif kind == "time":
                before = max(j for j, time in enumerate(times) if time <= centre + 1e-8)
                share = (centre - times[before]) / teacher.stride
                exact = abs(share) < 1e-5
                chosen = [before - 200] + ([] if exact else [before - 199])
                weights = [1.0] if exact else [1 - share, share]
            else:
                raise AssertionError
            exists = all(0 <= j < len(rows) for j in chosen) and chosen
            if exists and k + delay < count:
                found[b, k + delay] = sum(
                    weight * rows[j] for weight, j in zip(weights, chosen, strict=True)
                )
    return found


@given(
    kind=st.sampled_from(["time", "mean"]),
    stride=st.floats(0.02, 0.09),
    offset=st.floats(0, 0.05),
    teacher_offset=st.sampled_from([0.0, 0.0125]),
    delay=st.integers(0, 3),
    lens=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=3),
    seed=st.integers(0, 99),
)
def test_a_batch_equals_a_loop(kind, stride, offset, teacher_offset, delay, lens, seed):
    frames, teacher = FrameTimes(offset, stride), FrameTimes(teacher_offset, 0.02)
    generator = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(count, 3, generator=generator) for _, count in lens]
    counts = [count for count, _ in lens]
    matches = TimeMatch(kind, frames, teacher, delay).match(
        counts, [len(rows) for rows in vectors]
    )
    joined = torch.cat([torch.zeros(0, 3), *vectors])
    found = matches.targets(joined)
    expected = naive(kind, frames, teacher, delay, counts, vectors)
    places = list(
        zip(matches.utterances.tolist(), matches.frames.tolist(), strict=True)
    )
    assert places == sorted(expected)
    for place, row in zip(places, found, strict=True):
        torch.testing.assert_close(row, expected[place], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("teacher", "first"), [(WHISPER, 1), (HUBERT, 0)], ids=["whisper", "hubert"]
)
def test_concatenation_takes_the_frames_around_the_centre(teacher, first):
    """Pairs begin at 2k for HuBERT, and at 2k + 1 for Whisper: nearer by 20 ms."""
    match = TimeMatch("concat", student("conv2d", 160), teacher)
    matches = match.match([3, 2], [8, 4])
    rows = torch.arange(12.0)[:, None] * torch.ones(2)
    assert match.factor == 2
    pairs = [[first + 2 * k, first + 2 * k + 1] for k in range(3)]
    second = [[8 + n for n in pair] for pair in pairs[:2] if pair[1] < 4]
    assert matches.targets(rows)[:, ::2].tolist() == pairs + second
    assert matches.targets(rows).shape == (len(pairs + second), 4)
    assert not len(match.match([0], [9]))
    assert match.match([0], [9]).targets(rows).size(0) == 0


def test_delay_moves_targets_to_later_frames():
    frames = student("conv2d", 160)
    rows = torch.randn(40, 3)
    for kind in MATCHES:
        now = TimeMatch(kind, frames, WHISPER).match([10], [40])
        later = TimeMatch(kind, frames, WHISPER, 3).match([10], [40])
        assert (later.frames - 3).tolist() == now.frames[: len(later)].tolist()
        assert later.frames[-1] == 9 and later.frames[0] == now.frames[0] + 3
        same = now.targets(rows)[: len(later)]
        torch.testing.assert_close(later.targets(rows), same)


@pytest.mark.parametrize(
    ("layer", "hop", "rate"), [("conv2d", 128, 16000), ("conv2d_stride2", 220, 11025)]
)
def test_concatenation_refuses_other_ratios(layer, hop, rate):
    frames = student(layer, hop, rate)
    ratio = f"{frames.stride / 0.02:.6g}"
    with pytest.raises(UserError, match=f"concat needs an integer.*{ratio}; use match"):
        TimeMatch("concat", frames, WHISPER)


@pytest.mark.parametrize("kind", MATCHES)
def test_a_teacher_with_fewer_frames_is_refused(kind):
    with pytest.raises(UserError, match="16 ms, teacher slow every 20 ms: a teacher"):
        TimeMatch(kind, student("conv2d2", 128), WHISPER, label="teacher slow")


def test_a_nominal_rate_of_20_ms_is_not_refused():
    """A hop of 220 samples at 11,025 Hz is 19.95 ms."""
    matches = TimeMatch("time", FrameTimes(0, 220 / 11025), WHISPER).match([90], [90])
    assert len(matches) == 90


@pytest.mark.parametrize("delay", [-1, 1.5, True, None])
def test_wrong_options_are_refused(delay):
    with pytest.raises(UserError, match=r"conf\.delay is"):
        TimeMatch("time", HUBERT, WHISPER, delay)
    with pytest.raises(UserError, match=r"conf\.match is .nearest.; use one"):
        TimeMatch("nearest", HUBERT, WHISPER)


def test_long_recordings_do_not_drift():
    """An hour of 40 ms frames: positions to a thousandth of a teacher frame."""
    frames = student("conv2d", 160)
    count = 90000
    matches = TimeMatch("time", frames, WHISPER).match([count], [2 * count + 3])
    positions = torch.arange(2 * count + 3, dtype=torch.float64)[:, None]
    weights = torch.from_numpy(matches.weights).double()
    first = positions[matches.first, 0]
    assert len(matches) == count and math.isclose(float(weights[-1]), 0.5, abs_tol=1e-3)
    assert float(first[-1]) == 2 * count - 1
