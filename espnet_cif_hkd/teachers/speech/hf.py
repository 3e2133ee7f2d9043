"""Speech models of Hugging Face as teachers, and the same models without knowledge."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import own_conf
from espnet_cif_hkd.teachers.content import content_hash
from espnet_cif_hkd.teachers.speech.architecture import architecture_of, rebuilt
from espnet_cif_hkd.teachers.speech.base import Recording, SpeechTeacher
from espnet_cif_hkd.teachers.speech.config import (
    ModelFacts,
    SpeechConfig,
    is_local,
    layer_indices,
    payload_of,
    read_facts,
    speech_config,
)
from espnet_cif_hkd.teachers.speech.encoder import KINDS, SpeechEncoder
from espnet_cif_hkd.teachers.speech.opening import (
    content_files,
    frame_times,
    open_encoder,
    random_encoder,
)
from espnet_cif_hkd.teachers.speech.samples import check_finite, resampled

# Values in the inputs of one run: a CPU is not faster with several recordings.
_RUN_VALUES = {"cpu": 1}
_RUN_VALUES_ELSEWHERE = 1 << 22


class HFSpeechTeacher(SpeechTeacher):
    """Runs the frozen encoder of a speech model on each recording.

    Kinds of models: see :data:`espnet_cif_hkd.teachers.speech.encoder.KINDS`.

    Args:
        config: The model and its layers.

    Raises:
        UserError: The model cannot teach, or does not fit ``config``.
    """

    kind = "hf"

    def __init__(self, config: SpeechConfig):
        self.config = config
        self._facts = read_facts(config) if is_local(config) else None
        self.payload = payload_of(config, self._facts)
        self._encoder: SpeechEncoder | None = None
        self._times: FrameTimes | None = None

    @classmethod
    def from_conf(cls, conf: Mapping[str, Any]) -> "HFSpeechTeacher":
        """See :class:`~espnet_cif_hkd.teachers.speech.base.SpeechTeacher`."""
        if conf.get("teacher_conf"):
            raise UserError(
                f"teacher_conf: teacher_type {cls.kind} has no such options; remove it"
            )
        return cls(speech_config(conf))

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles, such as those of spawned workers, open the model again.
        return {**self.__dict__, "_encoder": None}

    @property
    def facts(self) -> ModelFacts:
        """Content of ``config.json``; a hub may be asked for it."""
        if self._facts is None:
            self._facts = read_facts(self.config)
        return self._facts

    @property
    def times(self) -> FrameTimes:
        """See :class:`~espnet_cif_hkd.teachers.speech.base.SpeechTeacher`."""
        if self._times is None:
            self._times = frame_times(self.config, self.facts)
        return self._times

    def open(self) -> SpeechEncoder:
        """Return the encoder, on the CPU at first; open it if needed."""
        if self._encoder is None:
            self._encoder = self._open()
        return self._encoder

    def _open(self) -> SpeechEncoder:
        return open_encoder(self.config, self.facts)

    @property
    def shortest(self) -> float:
        """See :class:`~espnet_cif_hkd.teachers.speech.base.SpeechTeacher`."""
        encoder = self.open()
        # Resampling may round the number of samples up.
        spare = 0 if encoder.rate == self.config.rate else 1
        return (encoder.shortest - spare) / encoder.rate

    def architecture(self) -> str:
        """See :class:`~espnet_cif_hkd.teachers.speech.base.SpeechTeacher`."""
        return architecture_of(self.facts, self.open())

    @classmethod
    def from_architecture(
        cls, conf: Mapping[str, Any], architecture: str
    ) -> "HFSpeechTeacher":
        """See :class:`~espnet_cif_hkd.teachers.speech.base.SpeechTeacher`."""
        config = speech_config(conf, check_place=False)
        facts, encoder = rebuilt(config, architecture)
        teacher = cls.__new__(cls)
        teacher.config, teacher._facts, teacher._encoder = config, facts, encoder
        teacher.payload, kind = payload_of(config, facts), KINDS[facts.kind]
        teacher._times = kind.frame_times(facts.config, encoder.extractor)
        return teacher

    def use(self, model: SpeechEncoder) -> None:
        """See :class:`~espnet_cif_hkd.teachers.speech.base.SpeechTeacher`."""
        self._encoder = model

    def resampled(self, recording: Recording) -> np.ndarray:
        """Return the samples at the rate of the model, (S,) float32.

        Raises:
            UserError: The recording has another rate, several channels, or is too
                short.
        """
        encoder = self.open()
        return resampled(recording, self.config, encoder.rate, encoder.shortest)

    def features(
        self, recordings: Sequence[Recording], device: torch.device
    ) -> list[Tensor]:
        """See :class:`~espnet_cif_hkd.teachers.speech.base.SpeechTeacher`.

        Raises:
            UserError: A recording is too short, has another rate, or has vectors that
                are not finite.
        """
        encoder = self.open()
        if next(encoder.parameters()).device != device:
            encoder.to(device)
        budget = _RUN_VALUES.get(device.type, _RUN_VALUES_ELSEWHERE)
        windows = [encoder.windows(self.resampled(one)) for one in recordings]
        groups: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
        for n, some in enumerate(windows):
            for m, window in enumerate(some):
                groups[tuple(window.inputs.shape)].append((n, m))
        found: dict[tuple[int, int], Tensor] = {}
        # Not in inference mode: its tensors cannot be saved for a backward pass.
        trains = next(encoder.parameters()).requires_grad and torch.is_grad_enabled()
        with torch.set_grad_enabled(trains):
            for shape, places in groups.items():
                size = max(1, budget // math.prod(shape))
                for begin in range(0, len(places), size):
                    batch = places[begin : begin + size]
                    inputs = torch.stack([windows[n][m].inputs for n, m in batch])
                    vectors = encoder(inputs.to(device))
                    for (n, m), one in zip(batch, vectors, strict=True):
                        found[n, m] = one[windows[n][m].keep]
        joined = [
            torch.cat([found[n, m] for m in range(len(some))])
            for n, some in enumerate(windows)
        ]
        check_finite(self.config.name, recordings, joined)
        return joined

    def describe(self) -> dict[str, Any]:
        """See :class:`~espnet_cif_hkd.teachers.base.AbsTeacher`."""
        config, found = self.config, dict[str, Any]()
        layers = list(config.layers)
        if self._facts is not None:
            layers = layer_indices(config, self._facts.num_layers)
            found = {
                "num_layers": self._facts.num_layers,
                "frame offset": self.times.offset,
                "frame stride": self.times.stride,
            }
        return {
            "type": self.kind,
            "name": config.name,
            "revision": config.revision,
            "layer": layers[0] if len(layers) == 1 else layers,
            "pad": config.pad,
            "rate": config.rate,
            "teacher_dtype": config.dtype,
            **found,
        }

    def fingerprint(self, cache: Path | None = None) -> str | None:
        """See :class:`~espnet_cif_hkd.teachers.base.AbsTeacher`."""
        files = content_files(self.config)
        return None if files is None else content_hash(files, cache)


class RandomSpeechTeacher(HFSpeechTeacher):
    """The same architecture with random weights: the control for a speech teacher.

    Args:
        config: The model whose ``config.json`` is used; weights are not read.
        seed: Seed of the weights.

    Raises:
        UserError: An option is wrong.
    """

    kind = "random"

    def __init__(self, config: SpeechConfig, seed: int = 1):
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UserError(
                f"teacher_conf.seed is {seed!r}; it must be an integer >= 0"
            )
        super().__init__(config)
        self.seed = seed

    @classmethod
    def from_conf(cls, conf: Mapping[str, Any]) -> "RandomSpeechTeacher":
        """See :class:`~espnet_cif_hkd.teachers.speech.base.SpeechTeacher`."""
        options = own_conf(conf, "teacher_conf")
        for name in options:
            if name != "seed":
                raise UserError(
                    f"teacher_conf: the random speech teacher has no option {name!r}; "
                    "there is seed"
                )
        return cls(speech_config(conf), **options)

    def _open(self) -> SpeechEncoder:
        return random_encoder(self.config, self.facts, self.seed)

    def describe(self) -> dict[str, Any]:
        """See :class:`~espnet_cif_hkd.teachers.base.AbsTeacher`."""
        return {**super().describe(), "seed": self.seed}

    def fingerprint(self, cache: Path | None = None) -> str | None:
        """Return a hash of the weights; see :class:`AbsTeacher`."""
        if self._facts is None:
            return None
        digest = hashlib.blake2b(digest_size=16)
        for name, weight in self.open().state_dict().items():
            digest.update(name.encode())
            digest.update(weight.cpu().float().numpy().tobytes())
        return digest.hexdigest()
