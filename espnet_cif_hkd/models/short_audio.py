"""Audio that is too short for a frontend."""

from typing import Any

from torch import Tensor

from espnet_cif_hkd.plugin.compat import TooShortUttError


def refuse_short_audio(frontend: Any, speech: Tensor) -> None:
    """Refuse audio that has fewer samples than half a window of the frontend.

    ESPnet's model raises another error there, which ``asr_inference`` does not turn
    into an empty hypothesis.

    Args:
        frontend: The frontend of the model, or None.
        speech: Samples ``(B, S)`` or features ``(B, F, C)``.

    Raises:
        TooShortUttError: The audio is too short.
    """
    n_fft = getattr(getattr(frontend, "stft", None), "n_fft", 0)
    if speech.dim() == 2 and speech.size(1) <= n_fft // 2:
        raise TooShortUttError(
            f"has {speech.size(1)} samples and is too short for the frontend (it "
            f"needs more than {n_fft // 2}), return empty results",
            speech.size(1),
            n_fft // 2,
        )
