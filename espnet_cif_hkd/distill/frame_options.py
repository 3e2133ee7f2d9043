"""Options of the criterion ``frames``, and the checks that need no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from espnet_cif_hkd.distill.time_matching import MATCHES
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.frames import FRAME_LOSSES

COMBINES = ("heads", "average", "random")
# Options of a teacher that are not passed to it.
_OURS = ("weight", "normalize")
_TEACHERS = (
    *("teacher", "teacher_revision", "teacher_type", "teacher_dim", "teacher_conf"),
    *("layer", "pad", "rate", "teacher_dtype", "teacher_store", "store_coding"),
)
# Options of ESPnet's training that change the audio on the fly.
_CHANGES_AUDIO = ("rir_scp", "noise_scp", "speech_volume_normalize")
_NO_WARP = (
    "SpecAugment's time warp moves the student's frames away from the times of the "
    "teacher's: set specaug_conf.apply_time_warp: false, or specaug: null"
)


@dataclass(frozen=True)
class TeacherOptions:
    """One entry of ``teachers``.

    Attributes:
        name: Name in YAML and in the log.
        conf: Options for ``build_speech_teacher``.
        weight: Weight of its loss.
        normalize: Whether its targets are normalised per dimension.
    """

    name: str
    conf: dict[str, Any]
    weight: float
    normalize: bool

    @property
    def rate(self) -> int:
        """Sampling rate of the recordings in Hz."""
        return int(self.conf.get("rate") or 16000)

    @property
    def store(self) -> str | None:
        """Folder of its stored features."""
        found = self.conf.get("teacher_store")
        return str(found) if found else None


def teacher_options(teachers: Any) -> list[TeacherOptions]:
    """Return the teachers of a criterion, without those that are null.

    Raises:
        UserError: There is none, an option is wrong, or two teachers share a store.
    """
    if not isinstance(teachers, Mapping) or all(
        one is None for one in teachers.values()
    ):
        raise UserError(
            f"criterion_conf.teachers is {teachers!r}; write one line for each teacher:"
            " 'NAME: {teacher: …, teacher_store: …}'"
        )
    found: list[TeacherOptions] = []
    for name, options in teachers.items():
        if options is None:
            continue
        place = f"criterion_conf.teachers.{name}"
        if not str(name).isidentifier() or hasattr(torch.nn.ModuleDict, str(name)):
            raise UserError(
                f"{place}: this cannot name a teacher: use a letter, then letters, "
                "digits and _"
            )
        if not isinstance(options, Mapping):
            raise UserError(f"{place} is {options!r}; it must hold 'option: value'")
        unknown = sorted(set(options) - {*_OURS, *_TEACHERS}, key=str)
        if unknown:
            raise UserError(
                f"{place}: {unknown[0]!r} is unknown; the options are "
                f"{', '.join((*_OURS, *_TEACHERS))}"
            )
        conf = {str(key): value for key, value in options.items() if key not in _OURS}
        weight = number(f"{place}.weight", options.get("weight", 1.0))
        normalize = options.get("normalize", True)
        if not isinstance(normalize, bool):
            raise UserError(f"{place}.normalize is {normalize!r}; use true or false")
        one = TeacherOptions(str(name), conf, weight, normalize)
        if normalize and not one.store:
            raise UserError(
                f"{place}: normalize: true needs statistics of a store: set "
                "teacher_store, or normalize: false"
            )
        for other in found:
            if one.conf == other.conf or (one.store and one.store == other.store):
                raise UserError(
                    f"{place}: has the same "
                    f"{'store' if one.store else 'options'} as {other.name}; each "
                    "teacher needs its own, so remove one of the two"
                )
        found.append(one)
    return found


def number(place: str, value: object) -> float:
    """Return a weight.

    Raises:
        UserError: It is not a number above 0.
    """
    given = isinstance(value, int | float) and not isinstance(value, bool)
    if not given or not 0 < float(value) < float("inf"):  # type: ignore[arg-type]
        raise UserError(f"{place} is {value!r}; give a number above 0")
    return float(value)  # type: ignore[arg-type]


def check_choices(tap: Any, loss: Any, combine: Any, match: Any) -> None:
    """Check options that name one of several choices.

    Raises:
        UserError: A name is unknown.
    """
    kind, _, layer = str(tap).partition(":")
    if tap != "hs_pad" and not (kind == "layer" and layer.isdecimal()):
        raise UserError(f"criterion_conf.tap is {tap!r}; use hs_pad or layer:N")
    for name, value, choices in (
        ("loss", loss, FRAME_LOSSES),
        ("combine", combine, COMBINES),
        ("match", match, MATCHES),
    ):
        if value not in choices:
            raise UserError(
                f"criterion_conf.{name} is {value!r}; use one of {', '.join(choices)}"
            )


def refuse_time_warp(warped: bool) -> None:
    """Refuse SpecAugment's time warp.

    Raises:
        UserError: It is on.
    """
    if warped:
        raise UserError(_NO_WARP)


def adds_silence(training: Mapping[str, Any]) -> bool:
    """Whether training utterances get silence, so that their frames move in time."""
    return training.get("preprocessor") == "silence"


def changes_of_audio(training: Mapping[str, Any]) -> list[str]:
    """Return the options that change the samples of utterances during a training.

    Args:
        training: Options of ESPnet's training command; empty if unknown.
    """
    if not training.get("use_preprocessor", True):
        return []
    conf = training.get("preprocessor_conf") or {}
    changed = ["preprocessor: silence"] if adds_silence(training) else []
    changed += [name for name in _CHANGES_AUDIO if training.get(name)]
    if conf.get("data_aug_prob"):
        changed.append("preprocessor_conf.data_aug_effects")
    return changed


def check_training(
    teachers: Sequence[TeacherOptions], training: Mapping[str, Any]
) -> None:
    """Refuse augmentation that does not fit the targets.

    Args:
        teachers: The teachers.
        training: Options of ESPnet's training command; empty if unknown.

    Raises:
        UserError: Time is warped, or audio is changed on the fly and targets are
            stored.
    """
    warp = (training.get("specaug_conf") or {}).get("apply_time_warp", True)
    refuse_time_warp(bool(training.get("specaug")) and bool(warp))
    stored = [one.name for one in teachers if one.store]
    if not stored:
        return
    changed = changes_of_audio(training)
    if changed:
        raise UserError(
            f"{changed[0]} changes the audio on the fly, so that the stored targets of "
            f"teacher {stored[0]} belong to other audio: remove it, or store the "
            "targets of changed copies (--speed_perturb_factors)"
        )
