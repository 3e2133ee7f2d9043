"""Which decoder states a criterion gets: joined with the fired vector, or before."""

import pytest
import torch
from recorder import Recorder
from tiny_bert import HIDDEN, build_tiny_bert
from tiny_model import gradients, tiny_batch, tiny_model

from espnet_cif_hkd.plugin.compat import add_sos_eos


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return build_tiny_bert(tmp_path_factory.mktemp("bert"))


def model_with(bert, linguistic):
    conf = {"teacher": bert, "teacher_dim": HIDDEN, "acoustic": None}
    conf["linguistic"] = linguistic
    return tiny_model(model_conf={"criterion": "hkd", "criterion_conf": conf}).train()


def decoder_output(model, batch):
    hs_pad, hlens = model.encode(batch["speech"], batch["speech_lengths"])
    ys_in, _ = add_sos_eos(batch["text"], model.sos, model.eos, -1)
    return model.decoder.forward_with_states(
        hs_pad, hlens, ys_in, batch["text_lengths"] + 1
    )


def regression(model):
    """Gradients of LRD's loss alone, by parameter; None where it does not reach."""
    outputs = []
    model.criterion.register_forward_hook(lambda *hooked: outputs.append(hooked[2]))
    model(**tiny_batch())
    names, parameters = zip(*model.named_parameters(), strict=True)
    loss = outputs[0].losses["loss_lrd"]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return dict(zip(names, found, strict=True))


def test_the_default_is_the_joined_states_bit_for_bit(bert):
    default, joined = model_with(bert, {}), model_with(bert, {"states": "joined"})
    assert default.criterion.wants == {"states:output"}
    losses = [model(**tiny_batch())[0] for model in (default, joined)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    ours, theirs = gradients(default), gradients(joined)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("states", ["joined", "transformer"])
def test_only_joined_states_teach_the_projection_that_joins(bert, states):
    reached = regression(model_with(bert, {"states": states}))
    for name in ("decoder.embed.weight", "decoder.after_norm.weight"):
        assert reached[name].abs().sum() > 0
    layers = [g for name, g in reached.items() if name.startswith("decoder.layers.")]
    assert layers and all(g is not None for g in layers)
    joins = reached["decoder.project_out.weight"]
    assert (joins is not None) == (states == "joined")
    assert reached["decoder.output_layer.weight"] is None


def test_states_before_joining_do_not_know_the_vector_of_their_token(bert):
    model = model_with(bert, {})
    output = decoder_output(model, tiny_batch())
    assert output.hidden.shape == output.states.shape
    for states, own in ((output.hidden, False), (output.states, True)):
        fired = output.cif.embeddings
        # one dimension: the sum of all is constant after a norm
        (reached,) = torch.autograd.grad(states[0, 1, 0], fired, retain_graph=True)
        assert reached[0, 0].any() and bool(reached[0, 1].any()) == own
        assert not reached[0, 2:].any()


@pytest.mark.parametrize(
    ("states", "field"),
    [("output", "states"), ("joined", "states"), ("transformer", "hidden")],
)
def test_a_criterion_gets_the_states_it_wants(states, field):
    model = tiny_model().train()
    model.criterion = Recorder(f"states:{states}")
    model(**tiny_batch())
    expected = getattr(decoder_output(model, tiny_batch()), field)
    assert torch.equal(model.criterion.got.states[states], expected)
    assert model.criterion.got.fired is None


def test_parameters_load_either_way(bert):
    joined = model_with(bert, {"states": "joined"})
    before = model_with(bert, {"states": "transformer"})
    for source, target in ((joined, before), (before, joined)):
        torch.nn.init.normal_(source.criterion.linguistic_projection.weight)
        target.load_state_dict(source.state_dict())
        for key, value in source.state_dict().items():
            assert torch.equal(value, target.state_dict()[key])
