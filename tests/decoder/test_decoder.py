"""The CIF decoder: known tokens, step by step, and what may look at what."""

import pytest
import torch
from decoder_search import check_padding

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.errors import UserError

VOCAB, SIZE = 11, 8


def make_decoder(**kwargs):
    torch.manual_seed(0)
    conf = {"attention_heads": 2, "linear_units": 16, "num_blocks": 2}
    return CIFDecoder(VOCAB, SIZE, **(conf | kwargs)).eval()


def teacher_forced(decoder, hs_pad, hlens, ys_in_pad):
    """Log-probabilities of known prefixes over freely fired vectors."""
    fired = decoder.fire(hs_pad, hlens)
    n_tokens = min(fired.embeddings.size(1), ys_in_pad.size(1))
    logits, _ = decoder.decode(fired.embeddings[:, :n_tokens], ys_in_pad[:, :n_tokens])
    return logits.log_softmax(-1), fired.lengths


@pytest.mark.parametrize("n_primer", [1, 3], ids=["sos", "primer of three"])
def test_step_by_step_equals_teacher_forced(n_primer):
    decoder = make_decoder(eos_slack=100)  # the model's own probability at every step
    hs = torch.randn(20, SIZE)
    ys = torch.randint(1, VOCAB - 1, (1, 12))
    ys[0, 0] = VOCAB - 1
    logp, lengths = teacher_forced(decoder, hs[None], torch.tensor([20]), ys)
    state = decoder.batch_init_state(hs)
    checked = 0
    for i in range(n_primer, int(lengths) + 1):
        score, states = decoder.batch_score(ys[:, :i], [state], hs[None])
        torch.testing.assert_close(score[0], logp[0, i - 1], atol=1e-5, rtol=0)
        single, _ = decoder.score(ys[0, :i], state, hs)
        torch.testing.assert_close(single, score[0], atol=1e-6, rtol=0)
        state = states[0]
        checked += 1
    assert checked > 3


def test_hypotheses_are_scored_as_if_alone():
    decoder = make_decoder(eos_slack=100)
    hs = torch.randn(16, SIZE)
    first = decoder.batch_init_state(hs)
    sos = torch.full((3, 1), VOCAB - 1)
    _, states = decoder.batch_score(sos[:1], [first], hs[None])
    prefixes = torch.cat([sos, torch.tensor([[1], [2], [3]])], dim=1)
    together, _ = decoder.batch_score(prefixes, states * 3, hs.expand(3, -1, -1))
    for n in range(3):
        alone, _ = decoder.batch_score(prefixes[n : n + 1], states, hs[None])
        torch.testing.assert_close(together[n], alone[0], atol=1e-6, rtol=0)
    assert not torch.allclose(together[0], together[1])


def test_a_token_sees_only_what_has_fired():
    decoder = make_decoder()
    embeddings = torch.randn(1, 6, SIZE)
    ys = torch.randint(1, VOCAB, (1, 6))
    before, _ = decoder.decode(embeddings, ys)
    for position in range(6):
        changed_embeddings, changed_ys = embeddings.clone(), ys.clone()
        changed_embeddings[0, position] += 1
        logits, _ = decoder.decode(changed_embeddings, ys)
        moved = (logits != before).any(-1)[0]
        assert moved.tolist() == [p >= position for p in range(6)]
        changed_ys[0, position] = (ys[0, position] + 1) % VOCAB
        logits, _ = decoder.decode(embeddings, changed_ys)
        moved = (logits != before).any(-1)[0]
        assert moved.tolist() == [p >= position for p in range(6)]


def test_padding_and_companions_change_nothing():
    check_padding(make_decoder(), SIZE, VOCAB, 1e-5)


def test_bfloat16_autocast_fires_as_float32_does():
    decoder = make_decoder()
    hs_pad, hlens = torch.randn(4, 50, SIZE), torch.tensor([50, 41, 30, 8])
    expected = decoder.fire(hs_pad, hlens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fired = decoder.fire(hs_pad, hlens)
        logits, _ = decoder.decode(
            fired.embeddings, torch.zeros(fired.embeddings.shape[:2], dtype=torch.long)
        )
    assert torch.equal(fired.lengths, expected.lengths)
    torch.testing.assert_close(fired.firing_times, expected.firing_times)
    assert torch.isfinite(logits).all()


def test_parameter_count_of_the_paper():
    """As in the original: all but the encoder and CTC, at V = 4234, d = 256."""
    decoder = CIFDecoder(4234, 256, attention_heads=4, linear_units=2048, num_blocks=2)
    expected = 197_121 + 1_083_904 * 2 + 131_072 * 2 + 2 * 1_315_072 + 512
    assert sum(p.numel() for p in decoder.parameters()) == expected


@pytest.mark.parametrize(
    "conf, message",
    [
        ({"attention_heads": 3}, "attention_heads 3 does not divide"),
        ({"attention_heads": "2"}, "attention_heads '2' does not divide"),
        ({"attention_heads": -2}, "attention_heads -2 does not divide"),
        ({"eos_slack": "1"}, "eos_slack is '1'; it must be a number of tokens"),
        ({"eos_slack": -1}, "eos_slack is -1"),
        ({"frame_window": [2]}, r"frame_window is \[2\]"),
        ({"predictor_conf": "causal"}, "predictor_conf is 'causal'; it must hold"),
        ({"predictor_conf": {"conv_with": 3}}, r"unknown keys \['conv_with'\]; known"),
        ({"predictor_conf": {3: 3}}, r"unknown keys \[3\]"),
        ({"predictor_conf": {"conv_width": 4}}, "conv_width is 4; it must be an odd"),
        ({"predictor_conf": {"conv_width": None}}, "conv_width is None"),
        ({"predictor_conf": {"conv_channels": 0}}, "conv_channels is 0; it must be an"),
        ({"predictor_conf": {"dropout_rate": "no"}}, "dropout_rate is 'no'"),
        ({"predictor_conf": {"dropout_rate": 2}}, "is 2; it must be a number from 0"),
        ({"predictor_conf": {"causal": 1}}, "causal is 1; it must be true or false"),
        ({"predictor_conf": {"tail_threshold": "none"}}, "is 'none'; .* or null"),
        ({"predictor_conf": {"tail_threshold": True}}, "tail_threshold is True"),
    ],
)
def test_wrong_options_are_named(conf, message):
    with pytest.raises(UserError, match=f"^decoder_conf: .*{message}"):
        make_decoder(**conf)


def test_null_is_a_value_of_some_options():
    conf = {"tail_threshold": None, "conv_channels": None, "dropout_rate": 0}
    assert make_decoder(predictor_conf=conf).tail_threshold is None
    assert make_decoder(predictor_conf=None).tail_threshold == 0.5
