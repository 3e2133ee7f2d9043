"""An ESPnet frontend whose features are those of a speech foundation model."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.compat import TooShortUttError
from espnet_cif_hkd.teachers.speech.base import Recording, SpeechTeacher, full_scales
from espnet_cif_hkd.teachers.speech.registry import (
    build_speech_teacher,
    speech_teacher_choices,
)
from espnet_cif_hkd.teachers.speech.stored import StoredSpeechTeacher


class SpeechTeacherFrontend(AbsFrontend):  # type: ignore[misc]
    """Features of a speech foundation model such as Whisper or WavLM.

    The weights of the model are frozen, or trained with the recogniser (``train``).
    With ``teacher_store``, the training reads the features from the store and does not
    load the model. Recordings are found by their samples, so speed-perturbed copies
    have entries of their own, and samples must not change after the store was filled.
    Validation and decoding read the store, too, and compute features that are not in
    it. The model is computed in float32, also under autocast.

    Use ``input_layer: linear`` in the encoder: the features have 20 to 50 frames per
    second.

    Args:
        fs: Sampling rate of the audio in Hz, such as 16000 or ``16k``. The model's own
            rate may differ; the audio is converted.
        pool: Number of neighbouring frames of the model whose mean is a feature frame;
            frames at the end that are too few for a mean are dropped.
        train: Whether the weights of the model are trained, too; excludes a store.
        weights: ``reference``: the checkpoint has no weights of the model, and decoding
            opens ``teacher``. ``value``: every checkpoint has them, with what is needed
            to build the model; decoding needs no other files, and ``teacher_dim`` is
            required. By default ``value`` if the weights are trained, else
            ``reference``.
        teacher: The speech model: a folder, a hub name, or
            ``pkg://DISTRIBUTION/FOLDER``, a folder in an installed pip package.
        teacher_dim: C, width of the model's vectors.
        teacher_store: Folder of stored features. Recipes fill it before stage 10, as
            ``python3 -m espnet_cif_hkd.cli.dump_speech_teacher`` does.
        teacher_revision: Commit or tag; required if ``teacher`` is a hub name.
        teacher_type: Class of the model by its name in the registry of speech teachers.
        layer: Layer of the model: 0 is its input, n is layer n, -1 is the last layer.
        pad: ``exact``: Whisper reads the audio only; ``full``: it pads the audio to 30
            seconds; a number: with so many seconds of silence.
        teacher_dtype: Precision of the model's computation.
        store_coding: Format of the store: ``float16`` or ``int8``.
        teacher_conf: Other options of the model's class.

    Raises:
        UserError: An option is missing or wrong.
    """

    def __init__(
        self,
        fs: int | str = 16000,
        pool: int = 2,
        train: bool = False,
        weights: str | None = None,
        teacher: str | None = None,
        teacher_dim: int | None = None,
        teacher_store: str | None = None,
        teacher_revision: str | None = None,
        teacher_type: str | None = None,
        layer: int | Sequence[int] | None = None,
        pad: float | str | None = None,
        teacher_dtype: str | None = None,
        store_coding: str | None = None,
        teacher_conf: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        given = {
            "teacher": teacher,
            "teacher_dim": teacher_dim,
            "teacher_store": teacher_store,
            "teacher_revision": teacher_revision,
            "teacher_type": teacher_type,
            "layer": layer,
            "pad": pad,
            "teacher_dtype": teacher_dtype,
            "store_coding": store_coding,
            "teacher_conf": teacher_conf,
        }
        self.conf = teacher_options({**given, "fs": fs})
        self.rate = int(self.conf["rate"])
        if type(pool) is not int or pool < 1:
            raise UserError(f"frontend_conf: pool {pool!r} must be an integer >= 1")
        self.pool = pool
        self.trains = train
        self.by_value = _by_value(train, weights, teacher_dim, teacher_store)
        # Submodule and buffer only if the checkpoint has the weights.
        self.speech_model: torch.nn.Module | None = None
        self.register_buffer("architecture", None)
        self._found: SpeechTeacher | None = None
        self._absent: UserError | None = None
        self._stored: StoredSpeechTeacher | None = None
        self._warned = False
        try:
            self._found = build_speech_teacher(self.conf, stored=False)
            if self.by_value:
                self._keep_weights(self._found)
        except UserError as error:
            if not self.by_value:
                raise
            # A checkpoint may follow that has everything.
            self._found, self._absent = None, error
        if teacher_store and self._found is not None:
            self._stored = StoredSpeechTeacher(str(teacher_store), self._found)

    def output_size(self) -> int:
        """Return C."""
        if self._found is not None:
            return self._found.payload.width
        layers = self.conf.get("layer", -1)
        count = len(layers) if isinstance(layers, list | tuple) else 1
        return int(self.conf["teacher_dim"]) * count

    @property
    def teacher(self) -> SpeechTeacher:
        """The speech model.

        Raises:
            UserError: The model is on this machine neither as files nor in a
                checkpoint.
        """
        if self._found is None:
            assert self._absent is not None
            raise self._absent
        return self._found

    @property
    def fewest_samples(self) -> int:
        """Fewest samples with a feature frame, or one frame of the model less."""
        first = self.teacher.shortest + (self.pool - 1) * self.teacher.times.stride
        return max(1, int(first * self.rate))

    def count(self, n_samples: int) -> int:
        """Return the number of feature frames of a recording, or one more or less."""
        silence = np.broadcast_to(np.float32(0), (n_samples,))
        return self.teacher.n_rows(Recording(silence, self.rate)) // self.pool

    def check(self) -> None:
        """Open the store if it exists, else the model.

        Raises:
            UserError: It cannot be opened, or was made for other options.
        """
        if self._stored is not None and self._stored.folder.is_dir():
            self._stored.open()
        else:
            self.teacher.open()

    def _keep_weights(self, teacher: SpeechTeacher) -> None:
        """Make the model a part of the state dict."""
        model, _ = teacher.open(), teacher.times  # files may vanish later
        text = teacher.architecture().encode()
        # Floats, because ESPnet averages the entries of checkpoints.
        self.architecture = torch.tensor(list(text), dtype=torch.float32)
        self.speech_model = model.requires_grad_(self.trains)
        self.train(self.training)

    def train(self, mode: bool = True) -> "SpeechTeacherFrontend":
        """Set the mode; a frozen model stays in that of inference."""
        super().train(mode)
        if self.speech_model is not None and not self.trains:
            self.speech_model.eval()
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Build the model of the checkpoint, unless the present one is the same."""
        given = state_dict.get(f"{prefix}architecture")
        if self.by_value and given is not None:
            text = bytes(given.round().to(torch.uint8).tolist()).decode()
            if self._found is None or self._found.architecture() != text:
                kind = speech_teacher_choices.get_class(
                    str(self.conf.get("teacher_type") or "hf")
                )
                self._found = kind.from_architecture(self.conf, text)
                self._keep_weights(self._found)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def is_known(self) -> bool:
        """Whether the model is here: False until a checkpoint by value is loaded."""
        return self._found is not None or self._stored is not None

    @property
    def times(self) -> FrameTimes:
        """Centres of the feature frames in seconds."""
        times = (self._stored or self.teacher).times
        middle = times.offset + times.stride * (self.pool - 1) / 2
        return FrameTimes(middle, times.stride * self.pool)

    def forward(self, input: Tensor, input_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of a batch.

        Args:
            input: Samples, ``(B, S)``; full scale of an utterance is 1 or 32768.
            input_lengths: Number of valid samples, ``(B,)`` integer.

        Returns:
            Features, ``(B, T, C)`` in the dtype of ``input``, zero in padding; number
            of valid frames, ``(B,)`` int64.

        Raises:
            TooShortUttError: An utterance has no frame.
            UserError: In training, an utterance is not in the store.
        """
        if input.dim() != 2:
            raise UserError(
                f"frontend: speech_teacher needs one channel, not samples of shape "
                f"{tuple(input.shape)}; run stage 3 with --channel mean"
            )
        recordings = self._recordings(input, input_lengths)
        with torch.autocast(input.device.type, enabled=False):
            frames = [self._pooled(one) for one in self._features(recordings, input)]
        sizes = [len(one) for one in frames]
        if min(sizes) < 1:
            shortest = sizes.index(min(sizes))
            raise self._too_short(len(recordings[shortest].samples))
        feats = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
        return feats.to(input.dtype), torch.tensor(sizes, device=input.device)

    def _too_short(self, n_samples: int) -> Exception:
        needed = self.fewest_samples
        error: Exception = TooShortUttError(
            f"has {n_samples} samples and is too short for a frame of the speech "
            f"teacher (it needs about {needed}), return empty results",
            n_samples,
            needed,
        )
        return error

    def _recordings(self, speech: Tensor, lengths: Tensor) -> list[Recording]:
        speech = speech.detach().float()
        samples = (speech / full_scales(speech)).cpu().numpy()
        return [
            Recording(one[:n], self.rate, "an utterance")
            for one, n in zip(samples, lengths.tolist(), strict=True)
        ]

    def _pooled(self, frames: Tensor) -> Tensor:
        """Mean of each ``pool`` neighbouring frames: ``(T, C)`` to ``(T // N, C)``."""
        count = len(frames) // self.pool
        return frames[: count * self.pool].unflatten(0, (count, self.pool)).mean(1)

    def _features(self, recordings: list[Recording], like: Tensor) -> list[Tensor]:
        """Return the frames of each recording, ``(T, C)`` float32, read or computed."""
        found: list[Tensor | None] = [None] * len(recordings)
        # A shared model comes without the store.
        if self._stored is not None and (self.training or self._stored.folder.is_dir()):
            if self.training:
                return self._stored.features(recordings, like.device)
            keys = [one.key for one in recordings]
            found = self._stored.features_by_key(keys, like.device)
        missing = [n for n, one in enumerate(found) if one is None]
        if missing:
            if self._stored is not None and not self._warned:
                self._warned = True
                logging.info(
                    "teacher_store %s: features that are not in it are computed",
                    self._stored.folder,
                )
            if self.speech_model is not None:  # a copy of this frontend has its own
                self.teacher.use(self.speech_model)
            shortest = min(len(recordings[n].samples) for n in missing)
            if shortest < self.teacher.shortest * self.rate:
                raise self._too_short(shortest)
            computed = self.teacher.features(
                [recordings[n] for n in missing], like.device
            )
            for n, one in zip(missing, computed, strict=True):
                found[n] = one
        return [one for one in found if one is not None]


def _by_value(
    train: object, weights: str | None, dim: int | None, store: str | None
) -> bool:
    """Whether checkpoints have the weights of the model; checks the options."""
    if not isinstance(train, bool):
        raise UserError(f"frontend_conf: train {train!r} must be true or false")
    if weights not in (None, "reference", "value"):
        raise UserError(
            f"frontend_conf: weights {weights!r} must be reference or value"
        )
    if train and weights == "reference":
        raise UserError(
            "frontend_conf: trained weights are not in the files of the teacher: set "
            "weights: value, or train: false"
        )
    if train and store:
        raise UserError(
            "frontend_conf: a teacher_store cannot follow trained weights: remove "
            "teacher_store, or set train: false"
        )
    if (train or weights == "value") and dim is None:
        raise UserError(
            "frontend_conf: set teacher_dim, the width of a layer of the teacher: "
            "decoding without the files of the teacher needs it"
        )
    return train or weights == "value"


def teacher_options(frontend_conf: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the speech teacher of a ``frontend_conf``.

    Args:
        frontend_conf: Options of :class:`SpeechTeacherFrontend`; those that are None
            keep the defaults of the teacher.

    Raises:
        UserError: ``fs`` is no sampling rate.
    """
    import humanfriendly

    fs = frontend_conf.get("fs", 16000)
    try:
        rate = humanfriendly.parse_size(str(fs))
    except humanfriendly.InvalidSize as error:
        raise UserError(
            f"frontend_conf: fs {fs!r} is no sampling rate, such as 16000 or 16k"
        ) from error
    others = ("fs", "pool", "train", "weights")
    conf = {
        name: value
        for name, value in frontend_conf.items()
        if name not in others and value is not None
    }
    return {**conf, "rate": rate}
