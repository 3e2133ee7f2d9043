"""A pre-trained encoder that is frozen at first, or trained at a lower rate."""

import copy

import pytest
import torch
from ddp_steps import assert_close, batch_of, seeded
from espnet_parts import HYBRID
from ranks import run_ranks
from tiny_model import CIF_CONFORMER, tiny_batch, tiny_model

from espnet_cif_hkd.errors import UserError

HOSTS = {"cif": {}, "hybrid": HYBRID}
# With batch statistics and dropout, which a frozen encoder must not use.
NOISY = copy.deepcopy(CIF_CONFORMER)
NOISY["encoder_conf"] |= {"dropout_rate": 0.3, "attention_dropout_rate": 0.3}
OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.01),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.3),
}


def model_of(host="cif", **options):
    changes = {**HOSTS[host], **NOISY}
    # In float64: the gradient of the keys' bias is 0, and Adam enlarges its rounding.
    return tiny_model(**{**changes, "model_conf": options}).double()


def step(model, optimizer, seed=0):
    """One update; the gradient norm, as ESPnet's trainer computes it."""
    torch.manual_seed(seed)
    optimizer.zero_grad()
    model.train()
    model(**tiny_batch(seed=seed, dtype=torch.float64))[0].backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    optimizer.step()
    return float(norm)


def state_of(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("host", HOSTS)
def test_a_frozen_encoder_is_bit_equal_and_moves_afterwards(host, optimizer):
    model = model_of(host, freeze_encoder_updates=3)
    made = OPTIMIZERS[optimizer](model.parameters())
    model.begin_training([made])
    before = state_of(model.encoder)
    decoder = state_of(model.decoder)
    for seed in range(3):
        step(model, made, seed)
        assert model.encoder.training
        assert_close(state_of(model.encoder), before, rtol=0, atol=0)
        assert not any(p in made.state for p in model.encoder.parameters())
    assert any((v != decoder[k]).any() for k, v in model.decoder.state_dict().items())
    step(model, made, 3)
    after = state_of(model.encoder)
    moved = {key for key, value in after.items() if (value != before[key]).any()}
    named = {key for key, _ in model.encoder.named_parameters()}
    # A bias of keys changes no attention: its gradient is 0.
    assert {key for key in named if not key.endswith("linear_k.bias")} <= moved
    assert any("running_mean" in key for key in moved)  # batch statistics, too


def test_blocks_of_freeze_param_stay_as_they_are():
    """ESPnet's trainer sets the mode once for each epoch, not for each batch."""
    model = model_of(freeze_encoder_updates=1)
    norms = [m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    norms[0].requires_grad_(False)
    made = torch.optim.SGD(model.parameters(), lr=0.1)
    model.begin_training([made])
    model.train()
    modes = [module.training for module in model.modules()]
    assert not norms[0].training and norms[1].training
    before = [norm.running_mean.clone() for norm in norms]
    for seed in range(3):
        made.zero_grad()
        model(**tiny_batch(seed=seed, dtype=torch.float64))[0].backward()
        made.step()
        assert [module.training for module in model.modules()] == modes
    assert torch.equal(norms[0].running_mean, before[0])
    assert not torch.equal(norms[1].running_mean, before[1])


def test_a_frozen_encoder_computes_without_dropout_and_batch_statistics():
    model = model_of(freeze_encoder_updates=2)
    made = torch.optim.Adam(model.parameters())
    model.begin_training([made])
    batch = tiny_batch(dtype=torch.float64)
    model.eval()
    expected = model.encode(batch["speech"], batch["speech_lengths"])[0]
    model.train()
    found = model.encode(batch["speech"], batch["speech_lengths"])[0]
    assert torch.equal(found, expected)
    found.sum().backward()
    assert all(not p.grad.any() for p in model.encoder.parameters())


def test_frozen_gradients_are_not_part_of_the_norm():
    model = model_of(freeze_encoder_updates=1)
    model.begin_training([torch.optim.Adam(model.parameters())])
    model.train()
    model(**tiny_batch(dtype=torch.float64))[0].backward()
    rest = [p for name, p in model.named_parameters() if not name.startswith("encoder")]
    every = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    assert float(every) == float(torch.nn.utils.clip_grad_norm_(rest, 1e9)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_factor_equals_a_parameter_group_with_a_lower_rate(optimizer):
    ours = model_of(encoder_lr_factor=0.2)
    expected = model_of()
    made = OPTIMIZERS[optimizer](ours.parameters())
    ours.begin_training([made])
    rest = [p for k, p in expected.named_parameters() if not k.startswith("encoder.")]
    other = OPTIMIZERS[optimizer]([{"params": rest}])
    lower = {"params": list(expected.encoder.parameters())}
    other.add_param_group({**lower, "lr": 0.2 * other.param_groups[0]["lr"]})
    for seed in range(4):
        step(ours, made, seed)
        step(expected, other, seed)
    assert_close(state_of(ours), state_of(expected), rtol=1e-5, atol=1e-7)
    unchanged = model_of()
    moved = [
        (p - q).abs().max() for p, q in zip(ours.parameters(), unchanged.parameters())
    ]
    assert max(moved) > 1e-3


def test_a_resumed_training_counts_on():
    model = model_of(freeze_encoder_updates=2)
    made = torch.optim.Adam(model.parameters())
    model.begin_training([made])
    step(model, made)
    saved = copy.deepcopy((model.state_dict(), made.state_dict()))
    again = model_of(freeze_encoder_updates=2)
    other = torch.optim.Adam(again.parameters())
    again.begin_training([other])
    again.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    before = state_of(again.encoder)
    step(again, other, 1)
    assert_close(state_of(again.encoder), before, rtol=0, atol=0)
    step(again, other, 2)
    assert any((v != before[k]).any() for k, v in state_of(again.encoder).items())


def rank_trains(rank):
    """Two updates of which the first is frozen, by DDP without unused parameters."""
    torch.manual_seed(0)
    model = tiny_model(model_conf={"freeze_encoder_updates": 1})
    wrapped = torch.nn.parallel.DistributedDataParallel(
        model, find_unused_parameters=False, gradient_as_bucket_view=True
    )
    made = torch.optim.SGD(model.parameters(), lr=0.5)
    model.begin_training([made])
    states = [state_of(model.encoder)]
    for _, batch in seeded([tiny_batch(seed=rank), tiny_batch(seed=rank + 2)], 0):
        made.zero_grad()
        wrapped.train()
        wrapped(**batch)[0].backward()
        made.step()
        states.append(state_of(model.encoder))
    return states


@pytest.mark.slow
def test_all_processes_freeze_together():
    first, second = run_ranks(rank_trains)
    for ours, theirs in zip(first, second, strict=True):
        assert_close(ours, theirs, rtol=0, atol=0)
    assert_close(first[1], first[0], rtol=0, atol=0)
    assert any((v != first[1][k]).any() for k, v in first[2].items())


def test_a_trained_frontend_gets_its_gradient():
    """Only the encoder is frozen: what comes before it learns."""
    model = tiny_model(model_conf={"freeze_encoder_updates": 1})
    model.begin_training([torch.optim.Adam(model.parameters())])
    batch = batch_of([0, 1])
    speech = batch["speech"].float().requires_grad_()
    model.train()(**{**batch, "speech": speech})[0].backward()
    assert speech.grad.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_lr_factor": 0}, r"conf\.encoder_lr_factor is 0; .*freeze_param"),
        ({"encoder_lr_factor": "1"}, r"conf\.encoder_lr_factor is '1'"),
        ({"freeze_encoder_updates": -1}, r"conf\.freeze_encoder_updates is -1"),
        ({"freeze_encoder_updates": 2.5}, r"conf\.freeze_encoder_updates is 2\.5"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        model_of(**options)


def test_another_trainer_is_refused():
    with pytest.raises(UserError, match="needs the trainer of this package"):
        model_of(encoder_lr_factor=0.5).train()(**tiny_batch())
