"""The one-pass decoder: what it sees, how it trains, and its searches."""

import copy

import pytest
import torch
from readable_decoder import EOS, TOKENS, search

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.search.greedy import greedy_search
from espnet_cif_hkd.search.nar import one_pass_search, search_with_fallback

D = 8


def tiny_nar(seed=0, bias=-0.5, **options):
    torch.manual_seed(seed)
    conf = {"attention_heads": 2, "linear_units": 16, "num_blocks": 2} | options
    decoder = CIFNARDecoder(EOS + 1, D, **conf).double().eval()
    decoder.predictor.output.bias.data.fill_(bias)
    if decoder.frame_attention is not None:  # it begins with zeros
        torch.nn.init.normal_(decoder.frame_attention.output.weight)
    return decoder


def tiny_frames(*lengths, seed=3):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(len(lengths), max(lengths), D, generator=generator)
    return frames.double(), torch.tensor(lengths)


def known_tokens(*lengths, seed=5):
    """``ys_in_pad`` and its lengths, ``<sos>`` counted."""
    generator = torch.Generator().manual_seed(seed)
    ys = torch.randint(1, EOS, (len(lengths), max(lengths)), generator=generator)
    ys[:, 0] = EOS
    for row, length in zip(ys, lengths, strict=True):
        row[length:] = EOS
    return ys, torch.tensor(lengths)


@pytest.mark.parametrize("window", [0, 2])
def test_each_token_sees_all_vectors_of_its_utterance_and_no_others(window):
    decoder = tiny_nar(frame_window=window)
    hs_pad, hlens = tiny_frames(20, 13)
    fired = decoder.fire(hs_pad, hlens)
    near = decoder.near_frames(hs_pad, hlens, fired)
    n = fired.lengths.tolist()
    assert n[1] < n[0] == fired.embeddings.size(1)
    base = decoder.predict(fired.embeddings, fired.lengths, near)
    for place in range(n[0]):
        changed = fired.embeddings.clone()
        changed[0, place] += 1.0
        changed[1, n[1] :] = 1e4  # padding
        moved = decoder.predict(changed, fired.lengths, near)
        assert ((moved - base)[0].abs().amax(dim=-1) > 1e-9).all()
        torch.testing.assert_close(moved[1, : n[1]], base[1, : n[1]], rtol=0, atol=0)


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("maxlenratio", [0.0, -4.0, 0.25, 0.01])
def test_one_pass_alone_in_a_batch_and_in_espnets_beam_are_the_same(
    window, maxlenratio
):
    decoder = tiny_nar(frame_window=window)
    hs_pad, hlens = tiny_frames(24, 9, 17, 24, 1, 13)
    together = one_pass_search(decoder, hs_pad, hlens, maxlenratio)
    assert len({len(one.yseq) for one in together}) > 1 or maxlenratio == 0.01
    assert [one.yseq.tolist() for one in together] == [
        one.yseq.tolist() for one in greedy_search(decoder, hs_pad, hlens, maxlenratio)
    ]
    for hs, n, found in zip(hs_pad, hlens, together, strict=True):
        options = {"beam_size": 1, "maxlenratio": maxlenratio}
        single = one_pass_search(decoder, hs[None, :n], n[None], maxlenratio)[0]
        assert torch.equal(found.yseq, single.yseq)
        assert found.score == pytest.approx(single.score, abs=1e-9)
        for batched in (True, False):
            expected = search(decoder, hs[:n], batched=batched, **options)[0]
            ids = expected.yseq.tolist()
            if len(ids) > 2 and ids[-2:] == [EOS, EOS]:  # ESPnet adds one at the limit
                ids.pop()
            assert found.yseq.tolist() == ids
            assert found.score == pytest.approx(float(expected.score), abs=1e-5)


def test_the_prefix_has_no_effect_in_a_beam_search():
    decoder = tiny_nar()
    hs_pad, hlens = tiny_frames(20, 13)
    state = decoder.batch_init_state(hs_pad, hlens)
    prefixes = torch.tensor([[EOS, 2, 3], [EOS, 4, 1], [EOS, 2, 2], [EOS, 5, 5]])
    logp, states = decoder.batch_score(prefixes, [state] * 4, hs_pad)
    assert torch.equal(logp[0], logp[1]) and torch.equal(logp[2], logp[3])
    assert not torch.equal(logp[0], logp[2])
    again, _ = decoder.batch_score(prefixes[[3, 0]], [states[3], states[0]], hs_pad)
    assert torch.equal(again, logp[[3, 0]])
    alone, _ = decoder.score(prefixes[2], decoder.init_state(hs_pad[1, :13]), hs_pad[1])
    torch.testing.assert_close(alone, logp[2])


def test_nothing_fired_gives_an_empty_hypothesis():
    decoder = tiny_nar(bias=-20.0)
    hs_pad, hlens = tiny_frames(6, 4)
    for found in one_pass_search(decoder, hs_pad, hlens):
        assert found.yseq.tolist() == [EOS, EOS] and found.score == 0.0
    assert search(decoder, hs_pad[0], beam_size=2)[0].yseq.tolist() == [EOS, EOS]


def test_training_shows_wrong_tokens_only_and_scores_the_others():
    decoder = tiny_nar(sampling_ratio=1.0).train()
    hs_pad, hlens = tiny_frames(20, 13)
    ys, lengths = known_tokens(6, 4)
    fired = decoder.fire(hs_pad, hlens, lengths)
    quiet = copy.deepcopy(decoder).eval()  # no dropout in the first pass either
    for module in decoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    likeliest = quiet.predict(fired.embeddings, fired.lengths).argmax(-1)
    # The guess of the first pass is right at two places.
    ys[0, 3], ys[1, 1] = likeliest[0, 2], likeliest[1, 0]
    output = decoder.read(fired, None, ys)
    targets = torch.tensor(
        [[*ys[0, 1:].tolist(), EOS], [*ys[1, 1:4].tolist(), EOS, 0, 0]]
    )
    right = likeliest == targets
    assert right[0, 2] and right[1, 0]
    assert torch.equal(output.scored[0], right[0])
    assert torch.equal(output.scored[1, :4], right[1, :4])
    assert output.scored[1, 4:].all()  # padding is not shown
    # What is shown changes the prediction of its neighbours.
    assert not torch.allclose(
        output.logits[0], quiet.predict(fired.embeddings, lengths)[0]
    )


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_share_of_shown_tokens(ratio):
    decoder = tiny_nar(sampling_ratio=ratio).train()
    hs_pad, hlens = tiny_frames(*[40] * 30)
    ys, lengths = known_tokens(*[30] * 30)
    output = decoder.forward_with_states(hs_pad, hlens, ys, lengths)
    if ratio == 0:
        assert output.scored is None and not decoder.embed.weight.requires_grad
        return
    shown = 1 - output.scored.double().mean()
    assert 0.35 < shown < 0.5  # most of the random guesses are wrong
    assert decoder.eval().forward_with_states(hs_pad, hlens, ys, lengths).scored is None


def test_gradients_reach_all_parameters_and_no_later_prediction_leaks():
    decoder = tiny_nar(frame_window=1, sampling_ratio=0.5).train()
    hs_pad, hlens = tiny_frames(20, 13)
    hs_pad.requires_grad_()
    ys, lengths = known_tokens(6, 4)
    output = decoder.forward_with_states(hs_pad, hlens, ys, lengths)
    output.logits[0, :6].logsumexp(-1).sum().backward()
    missing = [n for n, p in decoder.named_parameters() if p.grad is None]
    assert missing == []
    assert hs_pad.grad[0].abs().sum() > 0 and hs_pad.grad[1].abs().sum() == 0


def test_sixteen_bits():
    decoder = tiny_nar().float()
    hs_pad, hlens = tiny_frames(24, 9)
    plain = one_pass_search(decoder, hs_pad.float(), hlens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = one_pass_search(decoder, hs_pad.float(), hlens)
        output = decoder.train().forward_with_states(
            hs_pad.float(), hlens, *known_tokens(6, 4)
        )
    assert [len(one.yseq) for one in cast] == [len(one.yseq) for one in plain]
    assert output.logits.dtype == torch.bfloat16 and output.logits.isfinite().all()


def test_fallback_decodes_again_what_is_least_certain():
    torch.manual_seed(1)
    decoder = CIFDecoder(EOS + 1, D, attention_heads=2, linear_units=16).double().eval()
    decoder.predictor.output.bias.data.fill_(-0.5)
    nar = tiny_nar(seed=4, frame_window=1).without_firing()
    hs_pad, hlens = tiny_frames(24, 9, 17)
    fast = one_pass_search(nar, hs_pad, hlens, firing=decoder)
    slow = greedy_search(decoder, hs_pad, hlens)
    ids = [[one.yseq.tolist() for one in found] for found in (fast, slow)]
    assert all(a != b for a, b in zip(*ids, strict=True))
    least = []
    for hs, n in zip(hs_pad, hlens, strict=True):
        fired = decoder.fire(hs[None, :n], n[None])
        near = nar.near_frames(hs[None, :n], n[None], fired)
        p = nar.predict(fired.embeddings, fired.lengths, near).softmax(-1)
        p[:, : int(fired.lengths) - 2, EOS] = 0.0
        likeliest, tokens = p[0].max(-1)
        end = (tokens == EOS).nonzero().flatten().tolist()
        least.append(likeliest[: end[0] + 1 if end else None].min().item())
    order = sorted(range(3), key=least.__getitem__)
    for n_weak, threshold in enumerate([0.0, *[least[n] + 1e-9 for n in order]]):
        found = search_with_fallback(nar, decoder, hs_pad, hlens, threshold)
        for place, one in enumerate(found):
            assert one.yseq.tolist() == ids[place in order[:n_weak]][place]


@pytest.mark.parametrize("value", [-0.1, 1.5, "0.4", True, None, float("nan")])
def test_a_ratio_that_is_none_is_refused(value):
    with pytest.raises(UserError, match="sampling_ratio is"):
        CIFNARDecoder(len(TOKENS), D, sampling_ratio=value)
