"""A factor of the learning rate of some parameters, with any optimizer and scheduler.

Adam's updates do not depend on the scale of gradients, so a factor on the gradients
would not slow parameters down.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError

# Of options that act on an optimizer.
NEEDS_TRAINER = (
    "needs the trainer of this package: start the training with python3 -m "
    "espnet_cif_hkd (ESPnet 3: with espnet_cif_hkd.recipe.espnet3.main), without "
    "DeepSpeed"
)


class ScaledUpdates:
    """Scales the updates of parameters, by hooks of ``torch.optim.Optimizer``.

    Args:
        parameters: The parameters.
        factor: Factor of their updates: of the learning rate and of weight decay.
        option: Name of the factor in ``model_conf``, for messages.
        fixed: What replaces a factor of 0, for messages.

    Raises:
        UserError: The factor is no number above 0.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        factor: float,
        option: str,
        fixed: str,
    ) -> None:
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not number or not 0 < factor < float("inf"):
            raise UserError(
                f"model_conf.{option} is {factor!r}; give a number above 0, or "
                f"freeze_param: [{fixed}] to keep the {fixed} fixed"
            )
        self.factor = factor
        self._parameters = list(parameters)
        self._before: list[tuple[Tensor, Tensor]] = []
        self._option, self._attached = option, False

    def attach(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Act on the updates of the optimizers; nothing is done for a factor of 1."""
        self._attached = True
        if self.factor == 1:
            return
        for optimizer in optimizers:
            optimizer.register_step_pre_hook(self._before_step)
            optimizer.register_step_post_hook(self._after_step)

    def require(self) -> None:
        """Check that the factor has an effect.

        Raises:
            UserError: No optimizer is attached.
        """
        if self.factor != 1 and not self._attached:
            raise UserError(f"model_conf: {self._option} {NEEDS_TRAINER}")

    def _before_step(self, *_: Any) -> None:
        self._before = [
            (parameter, parameter.detach().clone())
            for parameter in self._parameters
            if parameter.grad is not None
        ]

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        for parameter, before in self._before:
            parameter.lerp_(before, 1 - self.factor)
        self._before = []
