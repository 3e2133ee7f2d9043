"""Long audio: windows, passages, the state on the disk."""

import itertools

import numpy as np
import pytest
import torch
from tiny_speech import CHANGES, RATE, model_files, noise

from espnet_cif_hkd import Speech2Text, UserError
from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.inference.joining import joined
from espnet_cif_hkd.inference.long_audio import LongAudio, LongOptions, long_options
from espnet_cif_hkd.inference.passages import Divider
from espnet_cif_hkd.inference.windows import encode_windows

GRID = FrameTimes(0.02, 0.04)


def identity(samples):
    """Frame n is sample 4 n: what a window should give."""
    return samples[::4, None], samples[::4]


@pytest.mark.parametrize("n_samples", [3, 400, 401, 1000, 1301, 1304])
def test_windows_give_each_frame_once(n_samples):
    audio = torch.arange(n_samples).float()
    reads = []

    def read(start, end):
        reads.append(end - start)
        return audio[round(start * 100) : round(end * 100)]

    found = list(encode_windows(identity, read, n_samples / 100, GRID, 4.0, 1.0))
    frames = torch.cat([window.hidden[:, 0] for window in found])
    assert torch.equal(frames, audio[::4])
    assert [window.last for window in found] == [False] * (len(found) - 1) + [True]
    assert found[-1].after == len(frames) and max(reads) <= 4.0 + 1e-9
    if len(found) > 1:
        assert min(reads) > 2.0
    half = found[len(found) // 2].after
    later = encode_windows(identity, read, n_samples / 100, GRID, 4.0, 1.0, half)
    if half < len(frames):
        rest = torch.cat([window.hidden[:, 0] for window in later])
        assert torch.equal(rest, audio[::4][half:])


@pytest.mark.parametrize("n_samples", [0, 50, 250, 700])
def test_audio_that_is_shorter_than_its_duration(n_samples):
    audio = torch.arange(n_samples).float()

    def read(start, end):
        return audio[round(start * 100) : round(end * 100)]

    with pytest.raises(UserError, match=r"ends before .* is given as 20\.00 s"):
        list(encode_windows(identity, read, 20.0, GRID, 4.0, 1.0))


def divide(weights, cuts, pause=4, longest=30):
    hidden = torch.arange(len(weights)).float()[:, None]
    divider = Divider(pause, longest, hidden[:0], weights[:0])
    found = []
    for a, b in itertools.pairwise([0, *cuts, len(weights)]):
        found += divider.push(hidden[a:b], weights[a:b], b == len(weights))
    return [(one.first, one.hidden[:, 0].long().tolist()) for one in found]


def test_passages_do_not_depend_on_the_pieces():
    """No weight is lost or doubled; a passage is not longer than allowed."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        lengths = torch.randint(1, 50, (12,), generator=generator).tolist()
        weights = torch.cat(
            [
                torch.rand(n, generator=generator) * (0.9 if k % 2 else 0.002) + 0.001
                for k, n in enumerate(lengths)
            ]
        )
        expected = divide(weights, [])
        cuts = torch.randint(0, len(weights), (9,), generator=generator)
        assert divide(weights, cuts.sort().values.tolist()) == expected
        places = [place for _, frames in expected for place in frames]
        assert places == sorted(set(places))
        dropped = sorted(set(range(len(weights))) - set(places))
        assert (weights[dropped] < 0.51).all()
        for first, frames in expected:
            assert frames == list(range(first, first + len(frames)))
            assert len(frames) <= 34


def test_a_passage_ends_in_the_pause():
    weights = torch.tensor([0.0] * 9 + [0.9] * 5 + [0.0] * 12 + [0.8] * 5 + [0.0] * 3)
    assert [(first, len(frames)) for first, frames in divide(weights, [])] == [
        (7, 9),  # two frames of silence on each side
        (24, 10),
    ]


def test_speech_without_a_pause_is_cut_between_tokens():
    weights = torch.full((200,), 0.37)
    weights[[27, 55]] = 0.01
    passages = divide(weights, [])
    assert passages[0][1][-1] == 27  # where the sum stands still
    sums = [float(weights[frames].sum()) for _, frames in passages[1:-1]]
    assert len(sums) > 3 and all(abs(one - round(one)) <= 0.1 for one in sums)


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    files = model_files(tmp_path_factory.mktemp("exp"), **CHANGES)
    found = Speech2Text(*files, greedy=True, return_times=True)
    found.asr_model.decoder.predictor.output.bias.data.fill_(-1.0)
    return found


def reader(audio):
    return lambda start, end: audio[round(start * RATE) : round(end * RATE)]


OPTIONS = LongOptions(window=2.0, context=0.4, pause=0.2, longest=1.0)


def test_audio_of_one_window_is_an_utterance(recogniser):
    for seconds in (1.9, 2.0, 0.01, 0.0):
        audio = noise(seconds)
        found = list(LongAudio(recogniser, OPTIONS).recognise(reader(audio), seconds))
        expected = recogniser(audio)
        assert joined(found, expected.duration).tokens == expected.tokens
    assert recogniser(noise(1.9)).tokens


@pytest.mark.slow
def test_an_interrupted_recognition_goes_on(recogniser, tmp_path):
    audio, state = noise(6.3), tmp_path / "state.npz"
    long, reads = LongAudio(recogniser, OPTIONS), []

    def read(start, end):
        reads.append(start)
        return reader(audio)(start, end)

    complete = list(long.recognise(read, 6.3, state))
    assert len(complete) > 4 and not state.exists()
    n_reads = len(reads)
    for n_done in (1, len(complete)):
        reads.clear()
        run = long.recognise(read, 6.3, state)
        begun = [next(run) for _ in range(n_done)]
        run.close()
        assert state.exists() and begun == complete[:n_done]
        before = len(reads)
        assert list(long.recognise(read, 6.3, state)) == complete
        assert len(reads) <= n_reads + 1 and before > 0
        assert not state.exists()
    result = joined(complete, 6.3).validate()
    assert len(result.tokens) == sum(len(one.tokens) for one in complete)


def test_a_state_of_something_else(recogniser, tmp_path):
    audio, state = noise(5.0), tmp_path / "state.npz"
    long = LongAudio(recogniser, OPTIONS)
    next(long.recognise(reader(audio), 5.0, state, "one"))
    with pytest.raises(UserError, match="another audio, model or of other options"):
        next(long.recognise(reader(audio), 5.0, state, "other"))
    good = state.read_bytes()
    for content in (b"", b"rubbish", good[: len(good) // 2]):
        state.write_bytes(content)
        with pytest.raises(UserError, match="is no state of a recognition") as caught:
            next(long.recognise(reader(audio), 5.0, state, "one"))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"windows": 3}, "no option 'windows'; it has window, context"),
        ({"pause": "1"}, "pause '1' must be a number"),
        ({"window": 5, "context": 3}, "keeps too few frames"),
        ({"pause": 0}, "pause must be more than 0"),
    ],
)
def test_options_that_do_not_fit(recogniser, given, message):
    with pytest.raises(UserError, match=message):
        LongAudio(recogniser, long_options(given))


def test_samples_that_are_wrong_are_refused(recogniser):
    audio = np.full(RATE * 3, np.nan, np.float32)
    with pytest.raises(UserError, match="NaN or infinite"):
        list(LongAudio(recogniser, OPTIONS).recognise(reader(audio), 3.0))
