"""An ESPnet frontend with the log-mel features of Kaldi."""

import numpy as np
import torch
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.features import FeatureSpec, Floats

# Kaldi's: samples have the range of int16, energies the precision of float32.
_SCALE = 32768.0
_FLOOR = float(np.finfo(np.float32).eps)
_PREEMPHASIS = 0.97
_LOWEST = 20.0  # Hz


class KaldiFbankFrontend(AbsFrontend):  # type: ignore[misc]
    """Log-mel features of Kaldi, as runtimes such as sherpa-onnx compute them.

    Each frame loses its mean, then it is pre-emphasised (0.97) and windowed; bands are
    triangles in mel from 20 Hz to half of the sampling rate. There is no dither. Frames
    are complete: audio that is shorter than a frame has none.

    Args:
        fs: Sampling rate in Hz, such as 16000 or ``16k``.
        n_mels: Number of bands.
        frame_length: Milliseconds of a frame.
        frame_shift: Milliseconds from one frame to the next.
        window: ``hamming`` (Paraformer's) or ``povey`` (Kaldi's default).
        stack: Neighbouring frames that are joined to one (low frame rate: LFR); at the
            ends, the first and the last frame are repeated.
        skip: Frames from one joined frame to the next.

    Raises:
        UserError: An option is wrong.

    Source: Kaldi's ``compute-fbank-feats``; LFR as in Paraformer, arXiv 2206.08317.
    """

    def __init__(
        self,
        fs: int | str = 16000,
        n_mels: int = 80,
        frame_length: float = 25.0,
        frame_shift: float = 10.0,
        window: str = "hamming",
        stack: int = 1,
        skip: int = 1,
    ) -> None:
        super().__init__()
        rate = _rate(fs)
        for name, count in (("n_mels", n_mels), ("stack", stack), ("skip", skip)):
            if type(count) is not int or count < 1:
                raise UserError(
                    f"frontend_conf: {name} {count!r} must be an integer >= 1"
                )
        length, shift = (int(rate * ms / 1000) for ms in (frame_length, frame_shift))
        if length < 2 or shift < 1:
            raise UserError(
                f"frontend_conf: frame_length {frame_length} and frame_shift "
                f"{frame_shift} are milliseconds: use such as 25 and 10"
            )
        n_fft = 1 << (length - 1).bit_length()
        self.spec = FeatureSpec(
            rate=rate,
            hop=shift,
            window=_window(window, length),
            n_fft=n_fft,
            mel=_mel_bands(rate, n_fft, n_mels),
            scale=_SCALE,
            mean=True,
            preemphasis=_PREEMPHASIS,
            floor=_FLOOR,
            stack=stack,
            skip=skip,
        )
        self.register_buffer(
            "window", torch.from_numpy(self.spec.window).float(), persistent=False
        )
        self.register_buffer(
            "mel", torch.from_numpy(self.spec.mel).float(), persistent=False
        )

    def output_size(self) -> int:
        """Return the size of a feature frame."""
        return self.spec.width

    def forward(self, input: Tensor, input_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features of a batch.

        Args:
            input: Samples, ``(B, S)``, full scale is 1.
            input_lengths: Number of valid samples, ``(B,)`` integer.

        Returns:
            Features, ``(B, T, C)`` in the dtype of ``input``, zero in padding; number
            of valid frames, ``(B,)``, 0 for audio that is shorter than a frame.

        Raises:
            UserError: The audio has several channels.
        """
        if input.dim() != 2:
            raise UserError(
                "frontend: kaldi_fbank needs one channel, not samples of shape "
                f"{tuple(input.shape)}; run stage 3 with --channel mean"
            )
        spec, reach = self.spec, self.spec.reach
        counts = torch.div(input_lengths - reach, spec.hop, rounding_mode="floor") + 1
        counts = counts.clamp(min=0)
        with torch.autocast(input.device.type, enabled=False):
            samples = input.float() * spec.scale
            short = max(0, reach - samples.size(1))
            frames = torch.nn.functional.pad(samples, (0, short))
            frames = frames.unfold(1, reach, spec.hop)  # (B, T, N)
            frames = frames - frames.mean(dim=2, keepdim=True)
            earlier = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
            frames = (frames - spec.preemphasis * earlier) * self.window
            spectra = torch.fft.rfft(frames, spec.n_fft)
            energy = (spectra.real.square() + spectra.imag.square()) @ self.mel
            feats = energy.clamp(min=spec.floor).log()
        feats, counts = self._joined(feats, counts)
        pad = torch.arange(feats.size(1), device=feats.device) >= counts[:, None]
        return feats.masked_fill(pad[..., None], 0.0).to(input.dtype), counts

    def _joined(self, feats: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        spec = self.spec
        if not spec.joins:
            return feats, counts
        first = torch.arange(0, feats.size(1), spec.skip, device=feats.device)
        place = first[:, None] + torch.arange(spec.stack, device=feats.device)
        place = (place - (spec.stack - 1) // 2).clamp(min=0)  # (T', m)
        last = (counts - 1).clamp(min=0)[:, None, None]
        rows = torch.minimum(place[None], last).flatten(1)  # (B, T' m)
        rows = rows[..., None].expand(-1, -1, feats.size(2))
        joined = feats.gather(1, rows).view(feats.size(0), -1, spec.width)
        return joined, torch.div(
            counts + spec.skip - 1, spec.skip, rounding_mode="floor"
        )


def _rate(fs: int | str) -> int:
    from humanfriendly import InvalidSize, parse_size

    try:
        rate = parse_size(fs) if isinstance(fs, str) else int(fs)
    except (InvalidSize, TypeError, ValueError):
        rate = 0
    if rate < 1000:
        raise UserError(f"frontend_conf: fs {fs!r} is no sampling rate such as 16000")
    return int(rate)


def _window(name: str, length: int) -> Floats:
    angles = 2 * np.pi * np.arange(length) / (length - 1)
    if name == "hamming":
        return np.asarray(0.54 - 0.46 * np.cos(angles))
    if name == "povey":
        return np.asarray((0.5 - 0.5 * np.cos(angles)) ** 0.85)
    raise UserError(f"frontend_conf: window {name!r}; choose hamming or povey")


def _mel(frequency: Floats | float) -> Floats:
    mel: Floats = 1127.0 * np.log(1.0 + np.asarray(frequency) / 700.0)
    return mel


def _mel_bands(rate: int, n_fft: int, n_mels: int) -> Floats:
    """Weights of the bands, ``(n_fft // 2 + 1, M)``; the last bin has none."""
    edges = np.linspace(_mel(_LOWEST), _mel(rate / 2), n_mels + 2)
    mel = _mel(np.arange(n_fft // 2 + 1) * rate / n_fft)[:, None]
    up = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    bands: Floats = np.minimum(up, down).clip(min=0.0)
    bands[-1] = 0.0
    return bands
