"""A model exposes what its criteria want, with the right lengths, and nothing else."""

import pytest
import recorder
import torch
from espnet_parts import ENCODERS, HYBRID, RNN, SMALL
from tiny_model import CIF_CONFORMER, TOKENS, tiny_batch, tiny_model

from espnet_cif_hkd.distill.taps import MODEL_TAPS, Taps
from espnet_cif_hkd.errors import UserError

assert recorder  # registers the criterion "recorder"


def tapped(*wants, **changes):
    """The model, and the taps of one training step."""
    conf = {"criterion": "recorder", "criterion_conf": {"wants": list(wants)}}
    changes = {**changes, "model_conf": {**changes.get("model_conf", {}), **conf}}
    model = tiny_model(**changes).train()
    model(**tiny_batch(), utt_id=["a", "b", "c"])
    return model, model.criterion.got


@pytest.mark.parametrize("host", ["cif", "hybrid"])
def test_only_what_is_wanted_is_exposed(host):
    changes = HYBRID if host == "hybrid" else {}
    changes = {**changes, "encoder_conf": SMALL}
    model, taps = tapped(**changes)
    assert taps.hs_pad.shape[0] == len(taps.hlens) == 3 and taps.utt_ids == [*"abc"]
    assert torch.equal(taps.ys_pad_lens + 1, taps.token_lens)
    assert not taps.layers and not taps.states and set(taps.timing) <= {"hs_pad"}
    assert taps.fired is None and taps.logits is None
    assert taps.speech is None and taps.speech_lengths is None
    assert taps.decoder is None
    for tap in sorted(MODEL_TAPS[host] - {"decoder", "hs_pad", "speech"}):
        model, taps = tapped(tap, **changes)
        found = {f"states:{name}": value for name, value in taps.states.items()}
        found |= {"logits": taps.logits}
        found |= {"fired": taps.fired and taps.fired.embeddings}
        found = {name: value for name, value in found.items() if value is not None}
        assert set(found) == {tap}
        rows = int(taps.token_lens.max())
        assert found[tap].shape == (3, rows, model.criterion.student.size(tap))


def test_the_decoder_for_given_vectors_is_that_of_the_model():
    """With the fired vectors and the transcripts it has the logits of the model."""
    model, taps = tapped("decoder", "fired", "logits")
    decoder = taps.decoder
    assert (decoder.sos, decoder.eos) == (model.sos, model.eos)
    assert torch.equal(decoder.embedding, model.decoder.embed.weight)
    assert not decoder.embedding.requires_grad
    text = torch.nn.functional.pad(taps.ys_pad, (1, 0), value=decoder.sos)
    logits, _ = decoder.decode(
        taps.fired.embeddings, text.masked_fill(text < 0, decoder.eos)
    )
    valid = taps.valid(taps.token_lens, logits)
    torch.testing.assert_close(logits[valid], taps.logits[valid])


def test_the_taps_of_a_model_are_those_that_checks_know():
    for changes in ({}, HYBRID):
        model, _ = tapped(**changes)
        sizes = model.criterion.student.sizes
        known = {tap for tap in sizes if not tap.startswith("layer:")}
        assert known | {"speech"} == MODEL_TAPS[model.criterion.student.model]
        assert sizes["logits"] == len(TOKENS)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_layers_of_espnets_encoders(encoder):
    """As the encoder itself returns them, and no other layer is touched."""
    changes = {"encoder": encoder, "encoder_conf": ENCODERS[encoder]}
    touched = []
    model, _ = tapped("layer:1", "layer:3", **changes)
    for layer in model.encoder.encoders:
        layer.register_forward_hook(lambda *_: touched.append(len(_)))
    model(**tiny_batch())
    assert len(touched) == 3  # our own hooks are gone, those of others stay
    assert all(len(m._forward_hooks) == 1 for m in model.encoder.encoders)
    taps = model.criterion.got
    assert set(taps.layers) == set(taps.layer_lens) == {1, 3}
    batch = tiny_batch()
    kept = []
    for layer in model.encoder.encoders:
        layer.register_forward_hook(lambda _, __, out: kept.append(out[0]))
    hs_pad, hlens, _ = model.encoder(batch["speech"], batch["speech_lengths"])
    kept = [frames[0] if isinstance(frames, tuple) else frames for frames in kept]
    for number in (1, 3):
        assert torch.equal(taps.layer_lens[number], hlens)
        torch.testing.assert_close(taps.layers[number], kept[number - 1])
    torch.testing.assert_close(taps.hs_pad, hs_pad)
    loss = taps.layers[3].sum()
    (reached,) = torch.autograd.grad(loss, taps.layers[1])
    assert reached.any()


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_layers_of_cif_conformer_have_their_own_lengths(chunk_size):
    """Layer 1 is pooled afterwards: its frames are at twice the rate."""
    conf = dict(CIF_CONFORMER["encoder_conf"], num_blocks=3, pooling_layers=[1, 2])
    conf.update(dropout_rate=0.0, attention_dropout_rate=0.0, chunk_size=chunk_size)
    changes = {"encoder": "cif_conformer", "encoder_conf": conf}
    model, taps = tapped("layer:1", "layer:2", "layer:3", **changes)
    batch = tiny_batch()
    lengths = batch["speech_lengths"]
    expected = {1: lengths, 2: lengths // 2, 3: lengths // 2 // 2}
    for number, frames in taps.layers.items():
        assert torch.equal(taps.layer_lens[number], expected[number])
        assert frames.shape[:2] == (3, int(expected[number].max()))
    model.eval()  # batch statistics would depend on the batch
    with torch.no_grad():
        model(**batch)
    taps = model.criterion.got
    for b in range(3):
        one = {k: v[b : b + 1] for k, v in batch.items()}
        one["speech"] = one["speech"][:, : one["speech_lengths"][0]]
        with torch.no_grad():
            model(**one)
        alone = model.criterion.got
        for number, frames in alone.layers.items():
            n = int(alone.layer_lens[number][0])
            assert n == frames.size(1)
            torch.testing.assert_close(
                taps.layers[number][b, :n], frames[0], rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize(
    ("encoder", "input_layer", "expected"),
    [
        ("transformer", "conv2d", {"hs_pad": (3, 4), "layer:1": (3, 4)}),
        ("conformer", "conv2d6", {"hs_pad": (1 + 4, 6), "layer:1": (5, 6)}),
        ("transformer", "linear", {"hs_pad": (0, 1), "layer:1": (0, 1)}),
        # One convolution of stride 2, then pairs of frames.
        ("cif_conformer", "conv2d_stride2", {"hs_pad": (2, 4), "layer:1": (1, 2)}),
    ],
)
def test_frames_have_their_times(encoder, input_layer, expected):
    """In hops of the spectrum, 80 samples at 8 kHz."""
    conf = {**SMALL, "input_layer": input_layer}
    if encoder == "cif_conformer":
        conf |= {"pooling_layers": [1], "cnn_module_kernel": 3}
    frontend = {"n_fft": 256, "hop_length": 80, "n_mels": 20, "fs": "8k"}
    given = {"criterion": "recorder", "criterion_conf": {"wants": ["layer:1"]}}
    model = tiny_model(
        encoder=encoder,
        encoder_conf=conf,
        frontend="default",
        frontend_conf=frontend,
        input_size=None,
        model_conf=given,
    ).train()
    lengths = torch.tensor([8000, 6000])
    text = torch.tensor([[3, 4], [5, -1]])
    speech = torch.randn(2, 8000)
    model(speech, lengths, text, torch.tensor([2, 1]))
    timing = model.criterion.got.timing
    # The same times are known when a criterion is built.
    student = model.criterion.student
    assert timing.items() <= student.timing.items() and student.rate == 8000
    assert student.sizes["speech"] == 1
    assert {k: (v.offset * 100, v.stride * 100) for k, v in timing.items()} == {
        name: (pytest.approx(first), pytest.approx(step))
        for name, (first, step) in expected.items()
    }


WITHOUT_DECODER = {**HYBRID, "model_conf": {"ctc_weight": 1.0}}
DROPPED = {"encoder_conf": {**SMALL, "layer_drop_rate": 0.5}}


@pytest.mark.parametrize(
    ("changes", "tap", "message"),
    [
        (HYBRID, "fired", "criterion recorder needs fired vectors; model: hybrid has"),
        (HYBRID, "states:joined", "needs the tap 'states:joined'; model: hybrid has"),
        (HYBRID, "layer:2", "needs the tap 'layer:2'.* layer:1 to layer:1"),
        (RNN, "states:output", "model: hybrid has none; choose among hs_pad, logits"),
        (WITHOUT_DECODER, "logits", "needs logits; model: hybrid has none; .* hs_pad"),
        ({}, "layer:2", "model: cif has none; choose among .*layer:1 to layer:1"),
        ({}, "layer:0", "needs the tap 'layer:0'"),
        ({}, "layers:1", "needs the tap 'layers:1'"),
        ({}, "state:joined", "needs the tap 'state:joined'"),
        (DROPPED, "layer:1", "needs the tap 'layer:1'; model: cif has none"),
    ],
)
def test_a_tap_that_a_model_lacks_is_refused_when_it_is_built(changes, tap, message):
    with pytest.raises(UserError, match=message) as caught:
        tapped(tap, **changes)
    assert "\n" not in str(caught.value)


def test_other_encoders_have_no_layers():
    changes = {"encoder": "rnn", "encoder_conf": {"output_size": 8, "hidden_size": 8}}
    with pytest.raises(UserError, match="needs the tap 'layer:1'"):
        tapped("layer:1", **HYBRID, **changes)
    _, taps = tapped("hs_pad", **HYBRID, **changes)
    assert taps.hs_pad.size(2) == 8


def test_a_width_that_is_not_there_is_refused_by_name():
    model, _ = tapped(**HYBRID)
    with pytest.raises(UserError, match="criterion recorder needs fired vectors"):
        model.criterion.student.size("fired")


def test_valid_rows():
    lengths = torch.tensor([2, 0, 3])
    rows = Taps.valid(lengths, torch.zeros(3, 3, 5))
    assert rows.tolist() == [[True, True, False], [False] * 3, [True] * 3]


@pytest.mark.parametrize("host", [{}, HYBRID], ids=["cif", "hybrid"])
def test_the_audio(host):
    """As the model received it; a model without a frontend has none."""
    audio = {
        "encoder_conf": {**SMALL, "num_blocks": 1, "input_layer": "conv2d"},
        "frontend": "default",
        "frontend_conf": {"n_fft": 256, "hop_length": 80, "n_mels": 20, "fs": "8k"},
        "input_size": None,
    }
    given = {"criterion": "recorder", "criterion_conf": {"wants": ["speech"]}}
    model = tiny_model(**host, **audio, model_conf=given).train()
    speech, lengths = torch.randn(2, 8000), torch.tensor([8000, 6000])
    model(speech, lengths, torch.tensor([[3, 4], [5, -1]]), torch.tensor([2, 1]))
    taps = model.criterion.got
    assert taps.speech is speech and torch.equal(taps.speech_lengths, lengths)
    with pytest.raises(UserError, match=r"needs the audio .a frontend, not"):
        tapped("speech", **host)
