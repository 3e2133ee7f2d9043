"""How the training of a pre-trained encoder begins: slower, or frozen at first.

Both act on the updates of any optimizer, with any scheduler, through hooks of
``torch.optim.Optimizer``.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.models.scaled_updates import NEEDS_TRAINER, ScaledUpdates

# Updates so far; in a parameter group, so that it is part of ESPnet's checkpoint.
_COUNT = "encoder_updates"


class EncoderStart:
    """Learning-rate factor of an encoder, and the updates for which it is frozen.

    A frozen encoder computes as at inference: without dropout, with fixed statistics of
    batch normalisation. Its parameters get no update and no state in the optimizer, its
    gradients are not part of the gradient norm, and weight decay does not move it.

    Args:
        encoder: The encoder.
        lr_factor: Factor of its updates: of the learning rate and of weight decay.
        freeze_updates: Number of updates for which it is frozen.

    Raises:
        UserError: An option is out of range.
    """

    def __init__(
        self, encoder: torch.nn.Module, lr_factor: float, freeze_updates: int
    ) -> None:
        parameters = list(encoder.parameters())
        self._scaled = ScaledUpdates(
            parameters, lr_factor, "encoder_lr_factor", "encoder"
        )
        counted = isinstance(freeze_updates, int) and not isinstance(
            freeze_updates, bool
        )
        if not counted or freeze_updates < 0:
            raise UserError(
                f"model_conf.freeze_encoder_updates is {freeze_updates!r}; give a "
                "number of updates, 0 or more"
            )
        self.encoder = encoder
        self.lr_factor = lr_factor
        self.freeze_updates = freeze_updates
        self._optimizer: torch.optim.Optimizer | None = None

    @property
    def needed(self) -> bool:
        """Whether the options change anything."""
        return self.lr_factor != 1 or self.freeze_updates > 0

    def attach(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Act on the updates of the optimizer that has the encoder's parameters."""
        ours = {id(parameter) for parameter in self.encoder.parameters()}
        for optimizer in optimizers:
            groups = optimizer.param_groups
            if any(id(p) in ours for group in groups for p in group["params"]):
                self._optimizer = optimizer
                groups[0].setdefault(_COUNT, 0)
                optimizer.register_step_pre_hook(self._before_step)
                optimizer.register_step_post_hook(self._after_step)
                self._scaled.attach([optimizer])
                return

    @property
    def frozen(self) -> bool:
        """Whether the next update does not change the encoder.

        Raises:
            UserError: No optimizer is attached.
        """
        if self._optimizer is None:
            raise UserError(
                "model_conf: encoder_lr_factor or freeze_encoder_updates "
                f"{NEEDS_TRAINER}, and without freeze_param: [encoder]"
            )
        count: int = self._optimizer.param_groups[0].get(_COUNT, 0)
        return count < self.freeze_updates

    @contextlib.contextmanager
    def forward(self) -> Iterator[bool]:
        """Run the encoder frozen in this context if it is; yield whether it is."""
        if not self.frozen:
            yield False
            return
        modes = [(module, module.training) for module in self.encoder.modules()]
        trained = [p for p in self.encoder.parameters() if p.requires_grad]
        self.encoder.eval()
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            yield True
        finally:
            # One by one: those of a frozen batch normalisation may differ.
            for module, mode in modes:
                module.training = mode
            for parameter in trained:
                parameter.requires_grad_(True)

    def connected(self, frames: Tensor) -> Tensor:
        """Return ``frames`` with zero gradients for the parameters of the encoder.

        ``DistributedDataParallel`` waits for a gradient of each parameter.
        """
        trained = [p for p in self.encoder.parameters() if p.requires_grad]
        if not trained:
            return frames
        return frames + torch.stack([p.flatten()[:0].sum() for p in trained]).sum()

    def _before_step(self, optimizer: Any, *_: Any) -> None:
        if self.frozen:
            for parameter in self.encoder.parameters():
                parameter.grad = None

    def _after_step(self, optimizer: Any, *_: Any) -> None:
        group = optimizer.param_groups[0]
        group[_COUNT] = group.get(_COUNT, 0) + 1
        if group[_COUNT] == self.freeze_updates:
            logging.info("the encoder was frozen for %d updates", self.freeze_updates)
