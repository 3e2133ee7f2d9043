"""ESPnet's preprocessor with silence at both ends of the utterances of a training."""

from typing import Any

import numpy as np
from espnet2.train.preprocessor import CommonPreprocessor
from numpy.typing import NDArray

from espnet_cif_hkd.errors import UserError

_WINDOW = 0.025  # seconds
_QUIETEST = 0.05  # share of the windows of a recording that are its background


class SilencePreprocessor(CommonPreprocessor):  # type: ignore[misc]
    """ESPnet's preprocessor, which adds silence to both ends of training utterances.

    A model of a corpus whose utterances begin and end with speech does not know
    silence. Each utterance gets silence of a random length before and after it, at most
    ``silence`` seconds each: noise with the loudness and the spectrum of its own
    quietest windows, or digital silence. Validation and recognition get none.

    In YAML ``preprocessor: silence`` and, for example, ``preprocessor_conf: {fs: 16000,
    silence: 0.5}``. Batches are made from the lengths that stage 10 found, without the
    silence, so they can be longer than ``batch_bins``.

    Args:
        fs: Sampling rate of the recordings, Hz; required.
        silence: Greatest length at each end, seconds.
        silence_zeros: Share of the utterances whose silence is digital, 0 to 1.
        **conf: Options of ESPnet's ``CommonPreprocessor``.

    Raises:
        UserError: An option is wrong.
    """

    def __init__(
        self,
        *,
        fs: int = 0,
        silence: float = 0.5,
        silence_zeros: float = 0.3,
        **conf: Any,
    ) -> None:
        super().__init__(fs=fs, **conf)
        if not fs > 0:
            raise UserError(
                f"preprocessor_conf: fs is {fs!r}; preprocessor: silence needs the "
                "sampling rate of the recordings in Hz, such as 16000"
            )
        if not 0 < silence < float("inf"):
            raise UserError(
                f"preprocessor_conf: silence {silence!r} must be seconds above 0; for "
                "none use preprocessor: default"
            )
        if not 0 <= silence_zeros <= 1:
            raise UserError(
                f"preprocessor_conf: silence_zeros {silence_zeros!r} must be from 0 to "
                "1"
            )
        self.silence = silence
        self.silence_zeros = silence_zeros

    def __call__(self, uid: str, data: dict[str, Any]) -> dict[str, NDArray[Any]]:
        """Return the arrays of an utterance.

        Args:
            uid: Its name.
            data: Its waveform, ``(samples,)`` or ``(samples, channels)``, and its text.

        Returns:
            The same names; in training with a longer waveform of the same dtype.
        """
        found: dict[str, NDArray[Any]] = super().__call__(uid, data)
        if self.train and self.speech_name in found:
            speech = found[self.speech_name]
            most = self.silence * self.fs
            before, after = np.random.uniform(0, most, 2).astype(int)
            is_digital = np.random.random() < self.silence_zeros
            model = speech[:0] if is_digital else speech
            ends = [like_background(model, n, self.fs) for n in (before, after)]
            longer = np.concatenate([ends[0], speech, ends[1]])
            found[self.speech_name] = longer.astype(speech.dtype)
        return found


def like_background(
    speech: NDArray[np.floating], samples: int, fs: int
) -> NDArray[np.float64]:
    """Return noise with the loudness and the spectrum of the quietest 5 % of windows.

    Args:
        speech: ``(n, …)``; each channel has its own noise. Shorter than a window of 25
            ms: the result is digital silence.
        samples: Length of the noise.
        fs: Sampling rate, Hz.

    Returns:
        ``(samples, …)``.
    """
    size = round(_WINDOW * fs)
    count = len(speech) // size
    if not count or not samples:
        return np.zeros((samples, *speech.shape[1:]))
    windows = speech[: count * size].reshape(count, size, -1).astype(np.float64)
    power = (windows**2).mean(1)  # (windows, channels)
    quietest = np.argsort(power, axis=0)[: max(1, round(_QUIETEST * count))]
    channels = np.arange(power.shape[1])
    level = power[quietest, channels].mean(0)
    spectra = np.abs(np.fft.rfft(windows * np.hanning(size)[:, None], axis=1)) ** 2
    shape = np.sqrt(spectra[quietest, :, channels].mean(0))  # (channels, bins)
    white = np.fft.rfft(np.random.standard_normal((samples, len(channels))), axis=0)
    at = np.linspace(0, shape.shape[1] - 1, len(white))
    gains = [np.interp(at, np.arange(shape.shape[1]), one) for one in shape]
    noise = np.fft.irfft(white * np.stack(gains, 1), samples, axis=0)
    own = np.maximum((noise**2).mean(0), np.finfo(np.float64).tiny)
    return (noise * np.sqrt(level / own)).reshape(samples, *speech.shape[1:])
