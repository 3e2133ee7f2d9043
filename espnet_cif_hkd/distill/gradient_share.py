"""A bound on the gradient that criteria send into the recogniser at a tap.

A criterion with a bound reads a copy of the tap. The backward pass of the copy keeps
the criterion's gradient and passes nothing on. Autograd has the complete gradient of
all other losses at the tap after all copies, so a hook of the tap compares both, scales
the criterion's gradient down if needed, and adds it. This takes one backward pass and
no communication. All gradients have the same factor under a gradient scaler, so their
ratio does not depend on it.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.distill.taps import Taps
from espnet_cif_hkd.errors import UserError


@dataclass
class _Copy:
    """The copy of a tap for one criterion, and its gradient in a backward pass."""

    name: str
    label: str
    max_share: float
    gradient: Tensor | None = None


class _Withhold(torch.autograd.Function):
    """The identity; its backward pass keeps the gradient and passes nothing on."""

    @staticmethod
    def forward(ctx: Any, tap: Tensor, copy: _Copy) -> Tensor:
        ctx.copy = copy
        return tap.view_as(tap)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        ctx.copy.gradient = gradients[0]
        return None, None


class GradientShares:
    """Bounds of all criteria in one training step.

    Args:
        measured: Gets, in the backward pass, the norm of a criterion's gradient at a
            tap divided by that of the other losses, before the bound: a scalar by the
            name of the criterion and of the tap, such as ``NAME.share_fired``.
    """

    def __init__(self, measured: dict[str, Tensor]) -> None:
        self._measured = measured
        self._copies: dict[int, list[_Copy]] = {}

    def limited(
        self, taps: Taps, wants: Iterable[str], prefix: str, max_share: float
    ) -> Taps:
        """Return the taps for a criterion whose gradients have a bound.

        Args:
            taps: Taps of this step.
            wants: Taps that the criterion reads.
            prefix: Begin of the criterion's names in the log.
            max_share: The bound, relative to the gradient of the other losses.

        Returns:
            The same values. Of ``fired``, the vectors have the bound, alpha and
            quantity have none.
        """
        changed: dict[str, Any] = {}
        layers, states = dict(taps.layers), dict(taps.states)
        for tap in sorted(wants):
            label = f"{prefix}share_{tap.replace(':', '_')}"
            kind, _, name = tap.partition(":")
            if kind == "layer":
                layers[int(name)] = self._copy(layers[int(name)], tap, label, max_share)
            elif kind == "states":
                states[name] = self._copy(states[name], tap, label, max_share)
            elif kind == "fired":
                assert taps.fired is not None
                vectors = self._copy(taps.fired.embeddings, tap, label, max_share)
                changed[kind] = dataclasses.replace(taps.fired, embeddings=vectors)
            elif kind not in ("decoder", "joint"):  # functions of other taps
                changed[kind] = self._copy(getattr(taps, kind), tap, label, max_share)
        return dataclasses.replace(taps, layers=layers, states=states, **changed)

    def _copy(self, tap: Tensor, name: str, label: str, max_share: float) -> Tensor:
        if not tap.requires_grad:  # validation, or nothing below the tap is trained
            return tap
        copies = self._copies.get(id(tap))
        if copies is None:
            copies = self._copies[id(tap)] = []
            tap.register_hook(lambda others: self._join(others, copies))
        copies.append(_Copy(name, label, max_share))
        copied: Tensor = _Withhold.apply(tap, copies[-1])  # type: ignore[no-untyped-call]
        return copied

    def _join(self, others: Tensor | None, copies: list[_Copy]) -> Tensor | None:
        """Return the sum of all gradients of a tap, those of criteria within bounds."""
        total = others
        for copy in copies:
            gradient, copy.gradient = copy.gradient, None
            if gradient is None:
                continue
            if others is None or total is None:
                raise UserError(
                    f"criterion_conf.max_share: no other loss depends on {copy.name}, "
                    "so its gradient has nothing to be compared with; remove max_share"
                )
            size, allowed = _norm(gradient), copy.max_share * _norm(others)
            scale = torch.where(size > allowed, allowed / size, 1.0)
            total = total + (gradient.to(scale.dtype) * scale).to(gradient.dtype)
            self._measured[copy.label] = size / (allowed / copy.max_share)
        return total


def _norm(gradient: Tensor) -> Tensor:
    """Frobenius norm, in float32 or float64."""
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    return torch.linalg.vector_norm(gradient, dtype=dtype)
