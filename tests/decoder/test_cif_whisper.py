"""decoder: cif_whisper against transformers' layers, padding, searches, training."""

import dataclasses

import pytest
import torch
from bpe_whisper import random_whisper
from decoder_search import (
    check_greedy,
    check_padding,
    check_steps,
    check_together,
)
from tiny_model import gradients, tiny_batch, tiny_model

from espnet_cif_hkd.decoder.cif_whisper import CIFWhisperDecoder
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.search.greedy import greedy_search
from espnet_cif_hkd.teachers.speech.whisper_decoder import (
    decoder_options,
    initial_parameters,
)

SIZE, FRAME = 8, 11  # of the decoder, and of encoder frames
IDS, PROMPT, END = [7, 9, 12, 20, 21, 30], [1, 2, 3, 4], 5
VOCAB = len(IDS) + 3
CONF = {"attention_heads": 2, "linear_units": 16, "num_blocks": 2, "max_length": 60}
OUTPUT_OF = [None, None, *IDS, END]  # Whisper's token of each of ours


def whisper(**options):
    return random_whisper(40, END, **options)


def make_decoder(window=2, model=None, **options):
    torch.manual_seed(0)
    decoder = CIFWhisperDecoder(
        VOCAB, FRAME, SIZE, frame_window=window, **{**CONF, **options}
    ).eval()
    state = (model or whisper()).model.decoder.state_dict()
    given = initial_parameters(state, [[], *([one] for one in IDS)], PROMPT, END)
    given = {name.removeprefix("decoder."): value for name, value in given.items()}
    report = decoder.load_state_dict(given, strict=False)
    new = ("predictor.", "fired_in.", "fired_out.", "fired_norm.")
    assert not report.unexpected_keys
    assert all(name.startswith(new) for name in report.missing_keys)
    return decoder


def trained(decoder):
    """With parts that begin with zeros as after a training."""
    with torch.no_grad():
        for part in (decoder.fired_in, decoder.fired_out):
            torch.nn.init.normal_(part.weight, std=0.4)
    return decoder


def oracle(decoder, model, frames, times, vectors, tokens):
    """Logits of one utterance by transformers' layers, its memory as one mask."""
    layers = model.model.decoder
    n, window, prompt = len(tokens), decoder.frame_window, PROMPT[:-1]
    allowed = torch.zeros(n, len(frames) + n, dtype=torch.bool)
    for i, time in enumerate(times):
        middle = min(max(-int(-time // 1) - 1, 0), len(frames) - 1)
        for t in range(len(frames)):
            inside = window is None or abs(t - middle) <= window
            allowed[i, t] = inside and window != 0
        for j in range(i + 1):
            allowed[i, len(frames) + j] = True
    allowed = torch.cat([allowed[:1].expand(len(prompt), -1), allowed])
    memory = torch.cat([frames[:, :SIZE], vectors[:, :SIZE]])[None]
    ids = torch.tensor([*PROMPT, *(OUTPUT_OF[token] for token in tokens[1:])])
    length = len(ids)
    xs = layers.embed_tokens(ids) + layers.embed_positions.weight[:length]
    xs = torch.cat(
        [
            xs[: len(prompt)],
            xs[len(prompt) :] + decoder.fired_in(decoder.fired_norm(vectors)),
        ]
    )
    causal = torch.ones(length, length).tril().bool()
    added = [
        torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)[None, None]
        for mask in (causal, allowed)
    ]
    xs = xs[None]
    for layer in layers.layers:
        xs = layer(
            xs,
            attention_mask=added[0],
            encoder_hidden_states=memory,
            encoder_attention_mask=added[1],
            use_cache=False,
        )
        xs = xs[0] if isinstance(xs, tuple) else xs
    xs = layers.layer_norm(xs)[0, len(prompt) :] + decoder.fired_out(
        decoder.fired_norm(vectors)
    )
    return (xs @ layers.embed_tokens.weight.t())[:, [*IDS, END]]


@pytest.mark.parametrize("window", [0, 2, None], ids=["vectors", "near", "all frames"])
@pytest.mark.parametrize("new", [True, False], ids=["new", "trained"])
@torch.no_grad()
def test_logits_equal_those_of_transformers(window, new):
    model = whisper()
    decoder = make_decoder(window, model)
    if not new:
        trained(decoder)
    hs_pad, hlens = torch.randn(3, 14, FRAME), torch.tensor([14, 9, 4])
    ys_in, ys_lens = torch.randint(2, VOCAB - 1, (3, 6)), torch.tensor([6, 4, 2])
    ys_in[:, 0] = VOCAB - 1
    output = decoder.forward_with_states(hs_pad, hlens, ys_in, ys_lens)
    for b in range(3):
        n, length = int(hlens[b]), int(ys_lens[b])
        expected = oracle(
            decoder,
            model,
            hs_pad[b, :n],
            output.cif.firing_times[b, :length].tolist(),
            output.cif.embeddings[b, :length],
            ys_in[b, :length].tolist(),
        )
        found = output.logits[b, :length, 2:]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("window", [0, 3, None])
def test_padding_and_companions_change_nothing(window):
    check_padding(trained(make_decoder(window)), FRAME, VOCAB, 1e-4)


@torch.no_grad()
def test_a_token_reads_its_window_and_vectors_up_to_its_own():
    decoder = trained(make_decoder(window=2))
    hs_pad, hlens = torch.randn(1, 30, FRAME), torch.tensor([30])
    ys_in = torch.full((1, 8), 3)
    fired = decoder.fire(hs_pad, hlens, torch.tensor([8]), 8)
    near = decoder.near_frames(hs_pad, hlens, fired)
    before = decoder.decode(fired.embeddings, ys_in, near)[0]
    later = hs_pad.clone()
    last = int(fired.firing_times[0, 3].ceil()) - 1 + 2  # the window of token 3
    later[0, last + 1 :] = 5.0
    vectors = fired.embeddings.clone()
    vectors[0, 4:] = 5.0
    other = dataclasses.replace(fired, embeddings=vectors)
    after = decoder.decode(vectors, ys_in, decoder.near_frames(later, hlens, other))[0]
    torch.testing.assert_close(before[0, :4], after[0, :4])
    assert not torch.allclose(before[0, 4:], after[0, 4:], atol=1e-3)


@pytest.mark.parametrize("n_primer", [1, 3], ids=["sos", "primer of three"])
@torch.no_grad()
def test_step_by_step_equals_known_prefixes(n_primer):
    check_steps(trained(make_decoder(eos_slack=100)), FRAME, VOCAB, n_primer, 1e-4)


@torch.no_grad()
def test_greedy_search_of_a_batch_is_espnets_search():
    check_greedy(trained(make_decoder()), FRAME, [24, 9, 17], VOCAB, 1e-3)


@torch.no_grad()
def test_several_utterances_in_one_search_are_scored_as_if_alone():
    check_together(trained(make_decoder(eos_slack=100)), FRAME, VOCAB, 1e-4)


@torch.no_grad()
def test_nothing_fired_gives_an_empty_hypothesis():
    decoder = make_decoder()
    decoder.predictor.output.bias.fill_(-100.0)
    hs_pad = torch.randn(2, 6, FRAME)
    found = greedy_search(decoder, hs_pad, torch.tensor([6, 3]))
    assert [len(one.yseq) for one in found] == [2, 2]


JOINED = {
    "encoder": "joined",
    "encoder_conf": {
        "encoder": "transformer",
        "encoder_conf": {
            "input_layer": "linear",
            "output_size": 4,
            "attention_heads": 2,
            "linear_units": 8,
            "num_blocks": 1,
        },
    },
    "decoder": "cif_whisper",
    "decoder_conf": {**CONF, "size": 6, "frame_window": 2},
}


def test_a_model_learns_decodes_freely_and_scales_the_decoder():
    model = tiny_model(**JOINED, model_conf={"decoder_lr_factor": 0.01})
    assert model.encoder.output_size() == 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.begin_training([optimizer])
    batch = tiny_batch()
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = model.train()(**batch)[0].sum()
        loss.backward()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    found = gradients(model)
    # A bias of keys changes no attention; the added matrices begin with zeros.
    assert all(g.any() for name, g in found.items() if "linear_k.bias" not in name)
    for name, parameter in model.named_parameters():
        scaled = name.startswith("decoder.") and ".predictor." not in name
        factor = 0.01 if scaled else 1
        moved = before[name] - parameter.detach()
        torch.testing.assert_close(
            moved, found[name] * 0.1 * factor, atol=1e-5, rtol=1e-3
        )
    with torch.no_grad():
        _, stats, _ = model.eval()(**batch)
    assert stats["cer_free"] is not None


def test_a_factor_of_the_decoder_needs_the_trainer():
    model = tiny_model(**JOINED, model_conf={"decoder_lr_factor": 0.01})
    with pytest.raises(UserError, match="decoder_lr_factor needs the trainer of this"):
        model.train()(**tiny_batch())
    model.eval()(**tiny_batch())


def test_autocast_trains_and_fires_as_float32():
    model, batch = tiny_model(**JOINED), tiny_batch()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    loss, stats, _ = model.train()(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        low, low_stats, _ = model(**batch)
    low.sum().backward()
    torch.testing.assert_close(low, loss, rtol=0.05, atol=0.05)
    quantity = stats["loss_quantity"], low_stats["loss_quantity"]
    torch.testing.assert_close(*quantity, rtol=0.05, atol=0.05)
    assert all(grad.isfinite().all() for grad in gradients(model).values())


def test_distillation_has_the_sizes_of_its_taps():
    conf = {"teacher_type": "random", "teacher_dim": 16}
    model = tiny_model(
        **JOINED, model_conf={"criterion": "hkd", "criterion_conf": conf}
    )
    loss, stats, _ = model.train()(**tiny_batch())
    loss.sum().backward()
    assert stats["loss_acd"].isfinite() and stats["loss_lrd"].isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention_heads": 3}, "attention_heads 3 does not divide size 8"),
        ({"size": 16}, "size 16 is more than the 11 dimensions"),
        ({"frame_window": -1}, "frame_window is -1; it must be an integer >= 0"),
        ({"prompt_length": 1.5}, "prompt_length is 1.5; it must be an integer >= 0"),
        ({"max_length": 0}, "max_length is 0; it must be an integer >= 1"),
    ],
)
def test_a_wrong_option_is_one_line(options, message):
    conf = {**CONF, "size": SIZE, **options}
    with pytest.raises(UserError) as error:
        CIFWhisperDecoder(VOCAB, FRAME, **conf)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@torch.no_grad()
def test_too_many_tokens_are_one_line():
    decoder = make_decoder()
    ys = torch.full((1, 61), 3)
    with pytest.raises(UserError, match="at most 60 tokens"):
        decoder(torch.randn(1, 70, FRAME), torch.tensor([70]), ys, torch.tensor([61]))


def test_another_architecture_is_refused():
    model = whisper(activation_function="relu")
    with pytest.raises(UserError, match="this model has relu"):
        decoder_options(model.config, len(PROMPT))
    assert decoder_options(whisper().config, len(PROMPT)) == {
        **CONF,
        "size": SIZE,
        "prompt_length": 3,
        "max_length": 60,
    }
