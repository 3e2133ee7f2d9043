"""States that attend to the frames around a firing: loop oracle, padding, searches."""

import pytest
import torch
from decoder_search import (
    beam,
    check_greedy,
    check_padding,
    check_steps,
    check_together,
)
from tiny_model import gradients, tiny_batch, tiny_config, tiny_model

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.frame_attention import FrameAttention
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.compat import BatchBeamSearch
from espnet_cif_hkd.search.greedy import greedy_search

VOCAB, SIZE, HEADS = 11, 8, 2


def randomised(module):
    """All parameters random: the output projection begins with zeros."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module


def make_decoder(window=2, **options):
    torch.manual_seed(0)
    conf = {"attention_heads": HEADS, "linear_units": 16, "num_blocks": 2}
    decoder = CIFDecoder(VOCAB, SIZE, **conf, frame_window=window, **options).eval()
    if window:
        randomised(decoder.frame_attention)
    return decoder


def oracle(attention, state, frames, time):
    """One token of one utterance, ``frames (T, D)``, in plain Python."""
    middle = min(max(-int(-time // 1) - 1, 0), len(frames) - 1)
    normed = attention.norm_frames(frames)
    query = attention.query(attention.norm_states(state))
    found, width = [], SIZE // HEADS
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        scores, values = [], []
        for place in range(2 * attention.window + 1):
            t = middle - attention.window + place
            if 0 <= t < len(frames):
                key = attention.key(normed[t])[part]
                score = (query[part] * key).sum() / width**0.5
                scores.append(score + attention.places[head, place])
                values.append(attention.value(normed[t])[part])
        weights = torch.stack(scores).softmax(0)
        found.append((weights[:, None] * torch.stack(values)).sum(0))
    return state + attention.output(torch.cat(found))


@pytest.mark.parametrize("window", [1, 3])
def test_it_equals_a_loop_over_tokens(window):
    torch.manual_seed(1)
    attention = randomised(FrameAttention(SIZE, HEADS, window, 0.3)).eval().double()
    hs_pad = torch.randn(3, 9, SIZE, dtype=torch.float64)
    hlens = torch.tensor([9, 5, 1])
    times = torch.tensor([[0.4, 1.0, 4.2, 9.0], [0.0, 2.0, 2.5, 5.0], [0.3, 0.6, 1, 1]])
    states = torch.randn(3, 4, SIZE, dtype=torch.float64)
    near = attention.near(hs_pad, hlens, times.double())
    found = attention(states, near)
    for b, n in enumerate(hlens.tolist()):
        for i, time in enumerate(times[b].tolist()):
            expected = oracle(attention, states[b, i], hs_pad[b, :n], time)
            torch.testing.assert_close(found[b, i], expected)


def test_only_frames_of_the_window_have_an_effect():
    """``window`` frames after the frame of the firing: the latency of a stream."""
    attention = randomised(FrameAttention(SIZE, HEADS, 2, 0.0)).eval()
    states, hlens = torch.randn(1, 1, SIZE), torch.tensor([12])
    hs_pad = torch.randn(1, 12, SIZE).requires_grad_()
    near = attention.near(hs_pad, hlens, torch.tensor([[5.5]]))
    attention(states, near).sum().backward()
    moved = hs_pad.grad.abs().sum(-1)[0] > 0
    assert moved.nonzero().flatten().tolist() == [3, 4, 5, 6, 7]


def test_padding_and_companions_change_nothing():
    check_padding(make_decoder(), SIZE, VOCAB, 1e-5)


@pytest.mark.parametrize("n_primer", [1, 3], ids=["sos", "primer of three"])
@torch.no_grad()
def test_step_by_step_equals_known_prefixes(n_primer):
    check_steps(make_decoder(eos_slack=100), SIZE, VOCAB, n_primer, 1e-5)


def prefix_score(decoder, hs, yseq):
    """The score of a sentence by the forward pass over freely fired vectors."""
    hlens = torch.tensor([len(hs)])
    fired = decoder.fire(hs[None], hlens)
    near = decoder.near_frames(hs[None], hlens, fired)
    n = min(int(fired.lengths), len(yseq) - 1)
    ys = yseq[None, :n]
    logits, _ = decoder.decode(fired.embeddings[:, :n], ys, near)
    logp = logits.log_softmax(-1)[0]
    return sum(float(logp[i, int(yseq[i + 1])]) for i in range(n))


@pytest.mark.slow
@torch.no_grad()
def test_searches_have_the_scores_of_the_forward_pass():
    decoder, lengths = make_decoder(), [24, 9, 17, 30]
    each, hs_pad = check_greedy(decoder, SIZE, lengths, VOCAB, 1e-4)
    plain = greedy_search(make_decoder(0), hs_pad, torch.tensor(lengths))
    for (hs, found, largest), other in zip(each, plain, strict=True):
        for best in largest:
            expected = prefix_score(decoder, hs, best.yseq)
            assert float(best.score) == pytest.approx(expected, abs=1e-4)
        assert found.score != pytest.approx(other.score, abs=1e-3)


@torch.no_grad()
def test_several_utterances_in_one_search_are_scored_as_if_alone():
    check_together(make_decoder(eos_slack=100), SIZE, VOCAB, 1e-5)


@torch.no_grad()
def test_nothing_fired_gives_an_empty_hypothesis():
    decoder = make_decoder()
    decoder.predictor.output.bias.fill_(-100.0)
    hs_pad = torch.randn(2, 6, SIZE)
    found = greedy_search(decoder, hs_pad, torch.tensor([6, 3]))
    assert [len(one.yseq) for one in found] == [2, 2]
    assert len(beam(decoder, hs_pad[0], BatchBeamSearch, 3, VOCAB).yseq) == 2


def model_of(window):
    conf = {**tiny_config()["decoder_conf"], "frame_window": window}
    return tiny_model(decoder_conf=conf)


def test_a_new_module_changes_nothing_and_then_learns():
    off, on, plain = model_of(0), model_of(3), tiny_model()
    assert off.state_dict().keys() == plain.state_dict().keys()
    on.load_state_dict({**on.state_dict(), **off.state_dict()})
    batch = tiny_batch()
    losses = [model.train()(**batch)[0] for model in (off, on, plain)]
    assert losses[0] == losses[2]
    torch.testing.assert_close(losses[0], losses[1])
    optimizer = torch.optim.SGD(on.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        on(**batch)[0].sum().backward()
        optimizer.step()
    found = gradients(on)
    assert all(grad.any() for name, grad in found.items() if "frame_attention" in name)
    with torch.no_grad():
        _, stats, _ = on.eval()(**batch)
    assert stats["cer_free"] is not None


@pytest.mark.parametrize("window", [-1, 1.5, "2", True])
def test_a_wrong_window_is_one_line(window):
    with pytest.raises(UserError, match=r"frame_window is .*; it must be") as error:
        make_decoder(window)
    assert "\n" not in str(error.value)
