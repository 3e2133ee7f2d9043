"""``cif_conformer`` beside ESPnet's conformer: same weights, same output."""

import pytest
import torch
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from espnet2.torch_utils.load_pretrained_model import load_pretrained_model
from espnet2.utils.get_default_kwargs import get_default_kwargs

from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.encoder.frames import PAPER_INPUT
from espnet_cif_hkd.encoder.front_end import INPUT_LAYERS

SIZE = 16
# As published recipes have them; all of it may stand in a configuration of ours.
PUBLISHED = {
    "output_size": SIZE,
    "attention_heads": 2,
    "linear_units": 24,
    "num_blocks": 2,
    "dropout_rate": 0.1,
    "positional_dropout_rate": 0.1,
    "attention_dropout_rate": 0.1,
    "normalize_before": True,
    "macaron_style": True,
    "rel_pos_type": "latest",
    "pos_enc_layer_type": "rel_pos",
    "selfattention_layer_type": "rel_selfattn",
    "activation_type": "swish",
    "use_cnn_module": True,
    "cnn_module_kernel": 7,
}
OURS = {"pooling_layers": [], "cnn_module_bias": True, "final_norm": True}
ESPNET_LAYERS = [name for name in INPUT_LAYERS if name != PAPER_INPUT]


def pair(input_layer="conv2d", features=SIZE, **changes):
    """ESPnet's encoder with weights of its own, and ours, both in evaluation."""
    torch.manual_seed(0)
    conf = PUBLISHED | {"input_layer": input_layer}
    theirs = ConformerEncoder(features, **conf).eval()
    with torch.no_grad():
        for name, value in theirs.state_dict().items():
            if value.is_floating_point():
                noise = 0.1 * torch.randn_like(value)
                value.add_(noise.abs() if name.endswith("running_var") else noise)
    return theirs, CIFConformerEncoder(features, **(conf | OURS | changes)).eval()


def features(frames=50):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, frames, SIZE, generator=generator), torch.tensor([frames])


def published_file(folder, encoder, names="own"):
    """A checkpoint with all keys of a model, in the names of either release."""
    state = encoder.state_dict()
    if names == "other":
        for name in ("weight", "bias"):
            one, other = f"embed.out.0.{name}", f"embed.out.{name}"
            one, other = (one, other) if one in state else (other, one)
            state[other] = state.pop(one)
    path = folder / "published.pth"
    torch.save({f"encoder.{key}": value for key, value in state.items()}, path)
    return path


@pytest.mark.parametrize("input_layer", ESPNET_LAYERS)
def test_the_same_names_and_the_same_output(input_layer):
    theirs, ours = pair(input_layer)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    batch = features()
    expected, olens, _ = theirs(*batch)
    found, lengths, _ = ours(*batch)
    assert lengths.tolist() == olens.tolist()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_same_training_step_of_one_utterance():
    theirs, ours = pair()
    ours.load_state_dict(theirs.state_dict())
    results = []
    for encoder in (theirs.train(), ours.train()):
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        hs_pad, _, _ = encoder(*features())
        hs_pad[..., ::2].square().sum().backward()
        grads = {name: p.grad for name, p in encoder.named_parameters()}
        results.append({"hs_pad": hs_pad} | grads | dict(encoder.named_buffers()))
    expected, found = results
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-3, atol=1e-4, msg=name
        )


@pytest.mark.parametrize("names", ["own", "other"])
@pytest.mark.parametrize("input_layer", ["conv2d", "conv2d2", "conv2d8"])
def test_init_param_of_a_published_model(tmp_path, input_layer, names):
    theirs, ours = pair(input_layer)
    path = published_file(tmp_path, theirs, names)
    model = torch.nn.ModuleDict({"encoder": ours})
    load_pretrained_model(f"{path}:encoder:encoder", model, False)
    expected, _, _ = theirs(*features())
    found, _, _ = ours(*features())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_init_param_leaves_out_what_the_paper_has_not(tmp_path):
    theirs, ours = pair(final_norm=False, pooling_layers=[1])
    path = published_file(tmp_path, theirs)
    model = torch.nn.ModuleDict({"encoder": ours})
    with pytest.raises(RuntimeError, match="after_norm"):
        load_pretrained_model(f"{path}:encoder:encoder", model, False)
    load_pretrained_model(f"{path}:encoder:encoder:encoder.after_norm", model, False)
    loaded = ours.state_dict()
    for name, value in theirs.state_dict().items():
        assert name.startswith("after_norm") or torch.equal(loaded[name], value)


def test_init_param_that_ignores_mismatches_keeps_the_papers_front_end(tmp_path):
    theirs, _ = pair(input_layer="conv2d")
    path = published_file(tmp_path, theirs)
    torch.manual_seed(5)
    papers = CIFConformerEncoder(
        SIZE, **(PUBLISHED | OURS), input_layer=PAPER_INPUT, input_channels=3
    )
    before = {k: v.clone() for k, v in papers.embed.state_dict().items()}
    model = torch.nn.ModuleDict({"encoder": papers})
    load_pretrained_model(f"{path}:encoder:encoder", model, True)
    assert all(torch.equal(before[k], v) for k, v in papers.embed.state_dict().items())
    loaded = papers.encoders.state_dict()
    for name, value in theirs.encoders.state_dict().items():
        assert torch.equal(loaded[name], value)


def test_own_checkpoint_survives_a_round_trip():
    _, ours = pair()
    state = {name: value.clone() for name, value in ours.state_dict().items()}
    _, fresh = pair()
    fresh.load_state_dict(state)
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, state[name])


def test_espnets_listing_of_defaults_builds_the_encoder():
    """What ``asr_train --print_config`` writes can be read again."""
    defaults = get_default_kwargs(CIFConformerEncoder)
    encoder = CIFConformerEncoder(80, **{**defaults, "num_blocks": 10})
    assert encoder.pooling_layers == (5, 10)
