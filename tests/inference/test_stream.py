"""A stream in pieces of any size against the offline search with the same mask."""

import itertools

import numpy as np
import pytest
import torch
from tiny_model import TOKENS
from tiny_speech import RATE, noise
from tiny_stream import (
    offline_frames,
    open_stream,
    spell,
    streaming_model,
    with_blanks,
)

from espnet_cif_hkd import UserError
from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
from espnet_cif_hkd.encoder.kaldi_fbank import KaldiFbankFrontend
from espnet_cif_hkd.inference.features import FeatureStream
from espnet_cif_hkd.inference.growing_stream import stream_options
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.search.greedy import greedy_search
from espnet_cif_hkd.search.transducer_greedy import transducer_greedy_search

KALDI = {"fs": RATE, "n_mels": 8}
KINDS = {
    "waits": {},
    "causal": {"causal": True},
    "frame_window": {"frame_window": 2},
    "transducer": {"transducer": True},
    "Kaldi": {"frontend": "kaldi_fbank", "frontend_conf": {**KALDI, "stack": 3}},
}
SMALL = {"output_size": 8, "attention_heads": 2, "linear_units": 8, "num_blocks": 1}
MANY = {"tokens": 999, "limit": 999}  # one passage


def split(samples, cuts):
    return [samples[a:b] for a, b in itertools.pairwise([0, *cuts, len(samples)])]


def random_cuts(generator, n_samples):
    count = int(generator.integers(0, 5))
    return np.sort(generator.integers(0, n_samples + 1, count)).tolist()


def streamed(model, samples, cuts, **options):
    """Ids, weights and the last result; checks every partial result."""
    one = open_stream(model, **options)
    before, alphas = Recognition(), []
    pieces = split(samples, cuts)
    for n in range(len(pieces) + 1):
        known = one._n_frames, one._firing and one._firing.predictor
        now = one.accept(pieces[n]) if n < len(pieces) else one.finish()
        assert now.tokens[: len(before.tokens)] == before.tokens
        assert now.text.startswith(before.text)
        now.validate()
        before = now
        if one._firing is not None and one._firing.predictor is not known[1]:
            alphas.append(one._firing.alpha)
    return before, torch.cat(alphas) if alphas else None


def assert_same(results):
    """Equal tokens and times; sums of other pieces round differently."""
    for one in results[1:]:
        assert one.text == results[0].text
        for found, expected in zip(one.tokens, results[0].tokens, strict=True):
            assert found.id == expected.id
            times = expected.start, expected.end, expected.confidence
            assert (found.start, found.end, found.confidence) == pytest.approx(
                times, abs=1e-5
            )


def expected_ids(model, hidden):
    lengths = torch.tensor([hidden.size(1)])
    if model.use_transducer_decoder:
        parts = model.decoder, model.joint_network
        return transducer_greedy_search(*parts, hidden, lengths)[0].yseq[1:].tolist()
    ids = greedy_search(model.decoder, hidden, lengths)[0].yseq[1:].tolist()
    return ids[: ids.index(model.eos)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_split_gives_the_offline_tokens(kind):
    """50 splits of each of four kinds of models."""
    model, generator = streaming_model(**KINDS[kind]), np.random.default_rng(0)
    seen = set()
    for length in (0.5, 0.31):
        samples = noise(length, seed=int(length * 10))
        hidden = offline_frames(model, samples)
        expected = expected_ids(model, hidden)
        splits = [random_cuts(generator, len(samples)) for _ in range(24)]
        for cuts in [list(range(57, 1100, 57)), *splits]:
            result, alpha = streamed(model, samples, cuts, **MANY)
            assert [one.id for one in result.tokens] == expected
            assert result.duration == len(samples) / RATE
            if alpha is not None:
                lengths = torch.tensor([hidden.size(1)])
                wanted = model.decoder.predictor(hidden, lengths)[0]
                torch.testing.assert_close(alpha, wanted, rtol=0, atol=1e-5)
        seen.update(expected)
        assert len(expected) > 2
    assert len(seen) > 1


@pytest.mark.parametrize("beam_size", [1, 3])
def test_blanks_are_no_tokens_as_offline(beam_size):
    """They keep their time: the next token does not begin earlier."""
    samples, cuts = noise(0.5, seed=5), [1000, 1003]
    options = {"beam_size": beam_size, **MANY}
    unknown, _ = streamed(streaming_model(), samples, cuts, **options)
    model = with_blanks(streaming_model())
    found, _ = streamed(model, samples, cuts, **options)
    expected = [one for one in unknown.tokens if one.id != 1]
    assert found.tokens == tuple(expected) and expected != [*unknown.tokens]
    assert found.text == spell(TOKENS[one.id] for one in expected) != ""
    if beam_size == 1:
        ids = expected_ids(model, offline_frames(model, samples))
        assert [one.id for one in found.tokens] == [one for one in ids if one != 0]


@pytest.mark.slow
@pytest.mark.parametrize("beam_size", [1, 3])
def test_passages_with_a_limit(beam_size):
    """Every passage is searched as an utterance of its vectors."""
    model = streaming_model()
    samples = noise(1.5)
    results = [
        streamed(model, samples, cuts, beam_size=beam_size, tokens=2, limit=5)[0]
        for cuts in ([], [1000, 1003, 9000], list(range(400, len(samples), 400)))
    ]
    assert_same(results)
    hidden = offline_frames(model, samples)
    fired = model.decoder.fire(hidden, torch.tensor([hidden.size(1)]))
    found = [one.id for one in results[0].tokens]
    if beam_size == 1:
        expected = []
        for vectors in fired.embeddings[0].split(5):
            # Frames that fire exactly these vectors
            expected += greedy_ids(model.decoder, vectors)
        assert found == expected
    assert len(found) > 10
    assert results[0].text == spell(TOKENS[one] for one in found)


def greedy_ids(decoder, vectors):
    class Ones(torch.nn.Module):
        def forward(self, hs_pad, hlens):
            return torch.ones(hs_pad.shape[:2])

    predictor, decoder.predictor = decoder.predictor, Ones()
    try:
        [one] = greedy_search(decoder, vectors[None], torch.tensor([len(vectors)]))
    finally:
        decoder.predictor = predictor
    ids = one.yseq[1:].tolist()
    return ids[: ids.index(decoder.eos)]


class Loudness(torch.nn.Module):
    """Weights that are 0 in silence, in place of an untrained predictor's."""

    def __init__(self, decoder, threshold):
        super().__init__()
        self.inner, self.threshold = decoder.predictor, threshold
        self.right = self.inner.right

    def forward_chunk(self, hs_pad, hlens, cache, last):
        hs, alpha, lengths, cache = self.inner.forward_chunk(hs_pad, hlens, cache, last)
        quiet = hs[..., 0] < self.threshold
        return hs, alpha.masked_fill(quiet, 0.0), lengths, cache


def test_a_pause_ends_a_passage_with_its_tail():
    """Then the next one begins as an utterance does, whatever the pieces."""
    model = streaming_model(causal=True)
    # Encoder frames are what the test needs: loud and silent ones.
    hidden = torch.randn(1, 60, 8, generator=torch.Generator().manual_seed(0))
    hidden[..., 0] = 1.0
    hidden[:, 20:35, 0] = -1.0
    model.decoder.predictor = Loudness(model.decoder, 0.0)
    results = []
    for size in (60, 1, 7):
        one = open_stream(model, tokens=3, pause=0.2)
        one._features._begin = RATE * 60  # seconds of audio, for the times
        for begin in range(0, 60, size):
            one._fire(hidden[:, begin : begin + size], last=begin + size >= 60)
        results.append(one._joiner.result(60.0))
    assert_same(results)
    with torch.no_grad():
        alpha = model.decoder.predictor.forward_chunk(
            hidden, torch.tensor([60]), None, True
        )[1]
    counts = [round(float(alpha[0, a:b].sum())) for a, b in ((0, 20), (35, 60))]
    tokens = results[0].tokens
    stride = one._text.stride
    first = [token for token in tokens if token.end <= 21 * stride]
    assert len(first) in (counts[0], counts[0] - 1, counts[0] - 2) and len(first) > 5
    assert len(tokens) - len(first) > 5 and tokens[len(first)].start > 30 * stride


@pytest.mark.slow
def test_state_and_results_are_bounded():
    model = streaming_model(frame_window=1)
    one = open_stream(model, tokens=4, limit=8, keep=False)
    sizes, counts, complete = [], [], []
    for n in range(40):
        result = one.accept(noise(0.25, seed=n))
        sizes.append(one.state_bytes)
        counts.append(len(result.tokens))
        complete += [token for token in result.tokens if token not in complete]
    assert max(sizes[20:]) <= max(sizes[:20]) < 100_000
    assert max(counts) < 20 and len(complete) > 60
    kept = open_stream(model, tokens=4, limit=8)
    for n in range(40):
        result = kept.accept(noise(0.25, seed=n))
    assert [token.id for token in result.tokens] == [token.id for token in complete]


def features_in_pieces(frontend, samples, cuts):
    one = FeatureStream(frontend)
    pieces = split(samples, cuts)
    last = len(pieces) - 1
    return torch.cat([one.push(piece, n == last) for n, piece in enumerate(pieces)])


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("n_fft", "hop", "window"), [(256, 80, None), (128, 100, 90)])
def test_features_in_pieces(n_fft, hop, window, center):
    conf = {"n_fft": n_fft, "hop_length": hop, "win_length": window, "center": center}
    frontend = streaming_model(frontend_conf={"fs": RATE, "n_mels": 8, **conf}).frontend
    generator = np.random.default_rng(0)
    for length in (0, 40, 128, 129, 300, 1234):
        samples = torch.as_tensor(noise(1.0)[:length])
        for cuts in ([], *(random_cuts(generator, length) for _ in range(4))):
            found = features_in_pieces(frontend, samples, cuts)
            if length <= n_fft // 2 or (not center and length < n_fft):
                assert len(found) == 0
                continue
            expected, _ = frontend(samples[None], torch.tensor([length]))
            torch.testing.assert_close(found, expected[0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("stack", "skip"), [(1, 1), (2, 1), (3, 2), (7, 6), (1, 3), (4, 5)]
)
def test_features_of_kaldi_in_pieces(stack, skip):
    frontend = KaldiFbankFrontend(**KALDI, stack=stack, skip=skip)
    reach, hop = frontend.spec.reach, frontend.spec.hop
    generator = np.random.default_rng(0)
    for length in (0, 40, reach - 1, reach, reach + hop, reach + 6 * hop + 1, 4321):
        samples = torch.as_tensor(noise(1.0)[:length])
        expected, _ = frontend(samples[None], torch.tensor([length]))
        for cuts in ([], *(random_cuts(generator, length) for _ in range(6))):
            found = features_in_pieces(frontend, samples, cuts)
            n_frames = frontend.spec.n_frames(length)
            assert len(found) == n_frames
            torch.testing.assert_close(found, expected[0, :n_frames])


def test_kept_samples_of_kaldi_are_few():
    frontend = KaldiFbankFrontend(**KALDI, stack=7, skip=6)
    one = FeatureStream(frontend)
    sizes = []
    for n in range(30):
        one.push(torch.as_tensor(noise(0.1, seed=n)), False)
        sizes.append(one.state_bytes)
    assert max(sizes) <= 4 * (frontend.spec.reach + 20 * frontend.spec.hop)


def test_too_little_audio_gives_nothing():
    for samples in (np.zeros(0, np.float32), noise(0.01)):
        one = open_stream(streaming_model())
        assert one.accept(samples) == one.finish()
        with pytest.raises(UserError, match="the stream has ended"):
            one.accept(samples)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalize": "utterance_mvn", "normalize_conf": {}}, "use normalize: global"),
        ({"encoder": "transformer", "encoder_conf": SMALL}, "needs 'encoder: cif_conf"),
        ({"encoder_conf": {**SMALL, "pooling_layers": []}}, "full context"),
        ({"frontend": "sliding_window", "frontend_conf": {}}, "cannot be streamed"),
        (
            {"frontend_conf": {"fs": RATE, "frontend_conf": {"use_wpe": True}}},
            "without use_wpe",
        ),
    ],
    ids=["mvn", "encoder", "context", "frontend", "wpe"],
)
def test_parts_that_need_the_complete_audio(changes, message):
    with pytest.raises(UserError, match=message):
        open_stream(streaming_model(**changes))


def test_another_decoder_is_refused_by_name():
    model = streaming_model()
    model.decoder = torch.nn.Linear(1, 1)
    with pytest.raises(UserError, match="or 'decoder: transducer', not Linear"):
        open_stream(model)


def test_a_one_pass_decoder_reads_all_tokens_at_once():
    model = streaming_model()
    size = model.encoder.output_size()
    model.decoder = CIFNARDecoder(len(TOKENS), size, attention_heads=2, num_blocks=1)
    with pytest.raises(UserError, match="or 'decoder: transducer', not CIFNARDecoder"):
        open_stream(model)


def test_a_growing_state_is_warned_of(caplog):
    conf = {**SMALL, "pooling_layers": [], "chunk_size": 2}
    open_stream(streaming_model(encoder_conf=conf))
    assert "left_chunks is -1" in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beam": 3}, "no option 'beam'; it has beam_size"),
        ({"beam_size": 0}, "beam_size 0 must be an integer >= 1"),
        ({"tokens": 9, "limit": 8}, "limit 8 must not be less than tokens 9"),
        ({"pause": 0.0}, "pause 0.0 must be more than 0"),
    ],
)
def test_options_that_do_not_fit(given, message):
    with pytest.raises(UserError, match=message):
        open_stream(streaming_model(), **vars(stream_options(given)))


def test_samples_that_are_wrong():
    one = open_stream(streaming_model())
    with pytest.raises(UserError, match="NaN or infinite"):
        one.accept(np.full(100, np.nan, np.float32))
    assert one.accept((noise(0.5) * 32767).astype(np.int16)).duration == 0.5
