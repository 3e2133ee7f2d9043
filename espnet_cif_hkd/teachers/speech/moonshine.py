"""The encoder of Moonshine as teacher, in the format of ONNX Runtime.

Moonshine (arXiv 2410.15608) reads samples through three convolutions. The pip package
``moonshine-voice`` 0.1.0 has its file ``encoder_model.ort``, whose last layer alone can
be read. onnxruntime computes it on the CPU.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.teachers.content import content_hash
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.source import resolve_teacher
from espnet_cif_hkd.teachers.speech.base import Recording, SpeechTeacher
from espnet_cif_hkd.teachers.speech.config import SpeechConfig, speech_config
from espnet_cif_hkd.teachers.speech.samples import check_finite, resampled

_FILE = "encoder_model.ort"
_RATE = 16000
# Samples of one frame, and from one frame to the next: convolutions with the widths
# 127, 7 and 3 and the strides 64, 3 and 2.
_WIDTH = 127 + 6 * 64 + 2 * 64 * 3
_STRIDE = 64 * 3 * 2


class MoonshineTeacher(SpeechTeacher):
    """Runs the encoder of Moonshine on each recording alone.

    Args:
        config: ``name`` is a folder with ``encoder_model.ort``; ``dim`` is 288 for
            Moonshine tiny and 416 for base.

    Raises:
        UserError: An option is wrong.
    """

    def __init__(self, config: SpeechConfig):
        if config.dim is None:
            raise UserError(
                "teacher_dim is not set; Moonshine tiny has 288 and base 416"
            )
        for option, value, only in (
            ("layer", config.layers, (-1,)),
            ("pad", config.pad, "exact"),
            ("teacher_dtype", config.dtype, "float32"),
        ):
            if value != only:
                raise UserError(
                    f"{option}: teacher_type moonshine has only "
                    f"{-1 if option == 'layer' else only}; remove the option"
                )
        self.config = config
        self.payload = Payload("frames", config.dim, config.coding)
        self._session: Any = None

    @classmethod
    def from_conf(cls, conf: Mapping[str, Any]) -> "MoonshineTeacher":
        """See :class:`~espnet_cif_hkd.teachers.speech.base.SpeechTeacher`."""
        if conf.get("teacher_conf"):
            raise UserError(
                "teacher_conf: teacher_type moonshine has no such options; remove it"
            )
        return cls(speech_config(conf))

    def __getstate__(self) -> dict[str, Any]:
        # Sessions cannot be sent to other processes.
        return {**self.__dict__, "_session": None}

    @property
    def times(self) -> FrameTimes:
        """See :class:`~espnet_cif_hkd.teachers.speech.base.SpeechTeacher`."""
        return FrameTimes(_WIDTH / 2 / _RATE, _STRIDE / _RATE)

    @property
    def shortest(self) -> float:
        """See :class:`~espnet_cif_hkd.teachers.speech.base.SpeechTeacher`."""
        return (_WIDTH - (self.config.rate != _RATE)) / _RATE

    @property
    def _path(self) -> Path:
        return Path(resolve_teacher(self.config.name), _FILE)

    def open(self) -> Any:
        """See :class:`~espnet_cif_hkd.teachers.base.AbsTeacher`."""
        if self._session is None:
            path = self._path
            if not path.is_file():
                raise UserError(
                    f"teacher {self.config.name}: there is no {_FILE} in it; name the "
                    "folder of Moonshine's encoder, such as "
                    "pkg://moonshine-voice/moonshine_voice/assets/tiny-en"
                )
            try:
                import onnxruntime
            except ImportError as e:
                raise UserError(
                    f"teacher {self.config.name}: teacher_type moonshine needs "
                    "onnxruntime; run: python3 -m pip install onnxruntime"
                ) from e
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            try:
                self._session = onnxruntime.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
            # onnxruntime raises errors of many types.
            except Exception as e:
                reason = one_line(e, 200)
                raise UserError(
                    f"teacher file {path}: cannot be read ({reason})"
                ) from e
        return self._session

    def features(
        self, recordings: Sequence[Recording], device: torch.device
    ) -> list[Tensor]:
        """See :class:`~espnet_cif_hkd.teachers.speech.base.SpeechTeacher`.

        Raises:
            UserError: A recording is too short, has another rate, or has vectors that
                are not finite; or the model has another width.
        """
        session, found = self.open(), []
        for recording in recordings:
            samples = resampled(recording, self.config, _RATE, _WIDTH)
            inputs = {
                "input_values": samples[None],
                "attention_mask": np.ones((1, len(samples)), dtype=np.int64),
            }
            names = {one.name for one in session.get_inputs()}
            (vectors,) = session.run(
                None, {name: inputs[name] for name in sorted(names & inputs.keys())}
            )
            found.append(torch.from_numpy(vectors[0]).float().to(device))
            if found[-1].shape != (self._n_frames(samples), self.payload.width):
                raise UserError(
                    f"teacher {self.config.name}: gives vectors of the shape "
                    f"{tuple(found[-1].shape)} instead of "
                    f"{(self._n_frames(samples), self.payload.width)}; set teacher_dim "
                    f"to {found[-1].shape[-1]}, or name an encoder of Moonshine"
                )
        check_finite(self.config.name, recordings, found)
        return found

    @staticmethod
    def _n_frames(samples: Any) -> int:
        return (len(samples) - _WIDTH) // _STRIDE + 1

    def describe(self) -> dict[str, Any]:
        """See :class:`~espnet_cif_hkd.teachers.base.AbsTeacher`."""
        return {
            "type": "moonshine",
            "name": self.config.name,
            "rate": self.config.rate,
            "frame offset": self.times.offset,
            "frame stride": self.times.stride,
        }

    def fingerprint(self, cache: Path | None = None) -> str | None:
        """See :class:`~espnet_cif_hkd.teachers.base.AbsTeacher`."""
        try:
            path = self._path
        except UserError:
            return None
        return content_hash([path], cache) if path.is_file() else None
