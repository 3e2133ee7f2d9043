"""A second derivative of our own operations is right or refused, never wrong."""

import importlib
import pkgutil

import pytest
import torch

from espnet_cif_hkd import cif, losses
from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.losses import contrastive_loss, rnnt_loss

LENGTHS = torch.tensor([6, 4])


def fire(hs, weights):
    return integrate_and_fire(hs, weights, LENGTHS, torch.tensor([4, 3])).embeddings


def fire_freely(hs, weights):
    return integrate_and_fire(hs, weights, LENGTHS, tail_threshold=0.01).embeddings


def contrast(student, _):
    teacher = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(2, 6, 2).sin()
    return contrastive_loss(
        student, teacher, LENGTHS, 0.5, None, loss_dtype=torch.float64
    )[0]


def transduce(student, _):
    logits = (
        student[:, :, None, :] * torch.linspace(0.5, 1.5, 3)[:, None]
    )  # (2, 6, 3, 2)
    targets = torch.ones(2, 2, dtype=torch.int64)
    return rnnt_loss(logits, targets, LENGTHS, torch.tensor([2, 1]))


# Name of the autograd function -> operations that call it.
OPERATIONS = {
    "_Staircase": [fire, fire_freely],
    "_KnownGradient": [contrast],
    "_Loss": [transduce],
}


def own_functions():
    found = set()
    for package in (cif, losses):
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            found |= {
                name
                for name, value in vars(module).items()
                if isinstance(value, type)
                and issubclass(value, torch.autograd.Function)
                and value is not torch.autograd.Function
            }
    return found


def test_every_autograd_function_is_tested_here():
    assert own_functions() == set(OPERATIONS)


@pytest.fixture(params=[one for several in OPERATIONS.values() for one in several])
def operation(request):
    return request.param


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(2, 6, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, 6, generator=generator, dtype=torch.float64) + 0.1
    return vectors.requires_grad_(), weights.requires_grad_()


def test_second_order_is_right_or_refused(operation, inputs):
    assert torch.autograd.gradcheck(operation, inputs)
    try:
        assert torch.autograd.gradgradcheck(operation, inputs)
    except RuntimeError as error:
        assert "has no second derivative" in str(error)


@pytest.mark.parametrize("power", [1, 2])
def test_a_graph_of_the_gradient_is_refused_in_every_call(operation, inputs, power):
    """torch's ``once_differentiable`` stays silent in ``torch.autograd.grad``."""
    for wanted in ([inputs[0]], inputs):
        loss = operation(*inputs).pow(power).sum()
        with pytest.raises(RuntimeError, match="has no second derivative"):
            torch.autograd.grad(loss, wanted, create_graph=True, allow_unused=True)
        loss.backward()
        assert inputs[0].grad.abs().sum() > 0
