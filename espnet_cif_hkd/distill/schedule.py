"""Options that every criterion has, and the number of optimizer updates.

Schedules count updates of the optimizer, not batches: gradient accumulation and steps
that a gradient scaler skips do not change the schedule. All processes of a distributed
training make the same updates, so they have the same count without communication.
"""

import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from espnet_cif_hkd.errors import UserError


@dataclass(frozen=True)
class CommonOptions:
    """Options of every criterion, next to its own.

    Attributes:
        start: Number of optimizer updates before the criterion takes part: until then
            its weight is 0, and it is not computed in training.
        ramp: Number of updates over which the weight then rises linearly from 0 to its
            value; 0: it has its value at once. Validation always uses the value, so
            that epochs can be compared.
        max_share: Upper bound of the criterion's gradient at each tap that it reads,
            relative to the gradient of all other losses there (Frobenius norms over the
            batch of a process). A larger gradient is scaled down to the bound before it
            enters the recogniser. Parameters of the criterion get the unscaled
            gradient. Criteria with a bound on the same tap do not count as other losses
            of each other. null: no bound. The log has ``share_TAP``, the relative size
            before the bound in the preceding step.
    """

    start: int = 0
    ramp: int = 0
    max_share: float | None = None

    @classmethod
    def take(cls, conf: dict[str, Any], own: Mapping[str, Any]) -> "CommonOptions":
        """Remove the common options from ``conf`` and check them.

        Args:
            conf: Options of a criterion; changed in place.
            own: Parameters of the criterion's class; a common option with the name of
                one of them stays in ``conf``.

        Raises:
            UserError: An option is of the wrong type or out of range.
        """
        names = [name for name in cls.__dataclass_fields__ if name not in own]
        given = {name: conf.pop(name) for name in names if name in conf}
        for name in ("start", "ramp"):
            value = given.get(name, 0)
            if type(value) is not int or value < 0:
                raise UserError(
                    f"criterion_conf.{name} is {value!r}; it must be a number of "
                    "optimizer updates, an integer >= 0"
                )
        share = given.get("max_share")
        number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if share is not None and not (number and 0 < share < math.inf):
            raise UserError(
                f"criterion_conf.max_share is {share!r}; it must be a number > 0, or "
                "null for no bound"
            )
        return cls(**given)

    @property
    def is_scheduled(self) -> bool:
        """Whether the weight depends on the number of updates."""
        return self.start > 0 or self.ramp > 0

    def factor(self, updates: int) -> float:
        """Return the factor of the weight after a number of updates, 0 to 1."""
        if updates < self.start:
            return 0.0
        if self.ramp == 0:
            return 1.0
        return min(1.0, (updates - self.start) / self.ramp)


class UpdateCount(torch.nn.Module):
    """The number of optimizer updates of a training, in the checkpoint.

    A number on the host, because a tensor on the device costs a synchronisation in each
    step. The checkpoint has it as a float32 scalar under ``updates``, because ESPnet
    averages checkpoints entry by entry. A checkpoint may lack it: then counting starts
    from 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.updates = 0

    def _save_to_state_dict(
        self, destination: Any, prefix: str, keep_vars: bool
    ) -> None:
        destination[prefix + "updates"] = torch.tensor(float(self.updates))

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        found = state_dict.get(prefix + "updates")
        self.updates = 0 if found is None else round(float(found))


_hooks: list[Any] = []
# Models whose updates are counted. Not kept alive by this.
_WATCHED: "weakref.WeakKeyDictionary[torch.nn.Module, UpdateCount]" = (
    weakref.WeakKeyDictionary()
)


def count_updates(model: torch.nn.Module, count: UpdateCount) -> None:
    """Increase ``count`` after each step of an optimizer of the model's parameters.

    A second call for the same model has no effect.
    """
    if not _hooks:
        _hooks.append(register_optimizer_step_post_hook(_after_step))
    _WATCHED[model] = count


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for model, count in list(_WATCHED.items()):
        if any(id(parameter) in stepped for parameter in model.parameters()):
            count.updates += 1
