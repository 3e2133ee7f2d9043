"""Features of an utterance that do not depend on the others of its batch.

ESPnet's ``frontend: default`` mirrors the end of the longest utterance for the Fourier
transform. The last frames of a shorter one see padding instead.
"""

from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.encoder.kaldi_fbank import KaldiFbankFrontend
from espnet_cif_hkd.encoder.speech_teacher import SpeechTeacherFrontend


def mirrored_reach(frontend: Any) -> int:
    """Samples of an utterance's end that ``frontend: default`` mirrors; 0: none."""
    stft = getattr(frontend, "stft", None)
    if type(frontend).__name__ != "DefaultFrontend" or stft is None:
        return 0
    return int(stft.n_fft // 2) if stft.center else 0


def mirrored(speech: Tensor, lengths: Tensor, reach: int) -> Tensor:
    """Append its mirrored end to each utterance.

    Args:
        speech: Padded samples, ``(B, S)``.
        lengths: Samples of each utterance, ``(B,)``.
        reach: Number of mirrored samples.

    Returns:
        ``(B, max(lengths) + reach)``; what follows the mirrored samples is arbitrary.

    Example:
        >>> speech = torch.tensor([[1, 2, 3, 0], [1, 2, 3, 4]])
        >>> mirrored(speech, torch.tensor([3, 4]), 2)
        tensor([[1, 2, 3, 2, 1, 1],
                [1, 2, 3, 4, 3, 2]])
    """
    width = int(lengths.max())
    place = torch.arange(width + reach, device=speech.device)  # (S',)
    last = lengths[:, None].to(speech.device) - 1
    place = last - (last - place).abs()  # (B, S')
    return speech.gather(1, place.clamp(min=0))


def batches_change_nothing(model: Any) -> bool:
    """Whether frontend and normalisation of a model read each utterance alone.

    Args:
        model: One of ours, in evaluation mode.
    """
    frontend = model.frontend
    known = frontend is None or isinstance(
        frontend, SpeechTeacherFrontend | KaldiFbankFrontend
    )
    normalize = model.normalize
    # With both, ESPnet's variance of an utterance has the padding, too.
    padded = getattr(normalize, "norm_vars", False) and type(normalize).__name__ == (
        "UtteranceMVN"
    )
    return (known or mirrored_reach(frontend) > 0) and not padded
