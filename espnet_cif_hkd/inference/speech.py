"""Checks of the audio that a user gives to a recogniser."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from espnet_cif_hkd.errors import UserError

Samples: TypeAlias = torch.Tensor | npt.NDArray[Any]
_INT16_SCALE = 1 / 32768


def checked_samples(speech: Any, name: str, frontend: Any) -> torch.Tensor:
    """Return the samples of an utterance as floats in a shape that ESPnet accepts.

    int16 samples are scaled to [-1, 1), as ESPnet's readers do in training. A single
    channel in two dimensions, ``(1, S)`` or ``(S, 1)``, becomes ``(S,)``.

    Args:
        speech: ``(S,)``; ``(S, C)`` if the frontend combines channels; features
            ``(T, F)`` without a frontend. float or int16.
        name: Name in messages, such as ``speech[3]``.
        frontend: The frontend of the model, or None.

    Returns:
        Floating tensor; empty if ``speech`` is empty.

    Raises:
        UserError: If the type, the shape or a value is wrong.
    """
    if not isinstance(speech, torch.Tensor | np.ndarray):
        raise UserError(
            f"{name} is a {type(speech).__name__}: give a numpy array or a tensor"
        )
    try:
        samples = torch.as_tensor(speech).detach()
    except (TypeError, ValueError):
        raise UserError(f"{name} has dtype {speech.dtype}: give float32") from None
    if samples.dtype == torch.int16:
        samples = samples * _INT16_SCALE
    elif not samples.is_floating_point():
        raise UserError(
            f"{name} has dtype {speech.dtype}: give float samples in [-1, 1], or int16"
        )
    if frontend is None:
        if samples.dim() != 2:
            raise UserError(
                f"{name} has shape {tuple(samples.shape)}: this model has no frontend, "
                "give features (frames, size)"
            )
    elif samples.dim() == 2 and 1 in samples.shape:
        samples = samples.flatten()
    elif samples.dim() != 1 and not (samples.dim() == 2 and _takes_channels(frontend)):
        raise UserError(
            f"{name} has shape {tuple(samples.shape)}: give one channel as (samples,), "
            "such as the first channel or the mean of the channels"
        )
    bad = samples.isfinite().logical_not().nonzero()
    if len(bad):
        raise UserError(
            f"{name}: {len(bad)} of {samples.numel()} values are NaN or infinite, the "
            f"first at index {bad[0, 0]}; repair the audio"
        )
    return samples


def _takes_channels(frontend: Any) -> bool:
    """True for a frontend of ESPnet with dereverberation or beamforming."""
    inner = getattr(frontend, "frontend", None)
    return any(getattr(inner, name, False) for name in ("use_wpe", "use_beamformer"))
