"""The registry of speech teachers."""

import importlib
from collections.abc import Mapping
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.speech.base import SpeechTeacher


class SpeechTeacherChoices:
    """Speech teacher classes by name.

    Attributes:
        classes: Classes by name, or ``"module:Class"``, which is imported at the first
            use. Register your own: ``speech_teacher_choices.classes["mine"] = Mine``.
    """

    def __init__(self, classes: Mapping[str, type[SpeechTeacher] | str]):
        self.classes = dict(classes)

    def choices(self) -> tuple[str, ...]:
        """Return all names."""
        return tuple(self.classes)

    def get_class(self, name: str) -> type[SpeechTeacher]:
        """Return the class of a name; case does not matter.

        Raises:
            UserError: The name is unknown, or the class is no speech teacher.
        """
        found = self.classes.get(name) or self.classes.get(name.lower())
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            found = getattr(importlib.import_module(module), attribute)
        if found is None:
            raise UserError(
                f"teacher_type is {name!r}; use one of {', '.join(self.choices())}"
            )
        if not (isinstance(found, type) and issubclass(found, SpeechTeacher)):
            raise UserError(
                f"teacher_type {name}: {found!r} is no subclass of "
                "espnet_cif_hkd.teachers.speech.base.SpeechTeacher"
            )
        return found


speech_teacher_choices = SpeechTeacherChoices(
    {
        "hf": "espnet_cif_hkd.teachers.speech.hf:HFSpeechTeacher",
        "random": "espnet_cif_hkd.teachers.speech.hf:RandomSpeechTeacher",
        "moonshine": "espnet_cif_hkd.teachers.speech.moonshine:MoonshineTeacher",
    }
)


def build_speech_teacher(
    conf: Mapping[str, Any], *, stored: bool = True
) -> SpeechTeacher:
    """Build the speech teacher of a mapping of options; opens no weights.

    Args:
        conf: ``teacher_type`` and the options of that teacher
            (:data:`espnet_cif_hkd.teachers.speech.config.OPTIONS`).
        stored: Whether to read ``teacher_store``, if it is set, instead of running the
            teacher.

    Raises:
        UserError: An option is missing or wrong.
    """
    kind = speech_teacher_choices.get_class(str(conf.get("teacher_type") or "hf"))
    teacher = kind.from_conf(conf)
    if not (stored and conf.get("teacher_store")):
        return teacher
    from espnet_cif_hkd.teachers.speech.stored import StoredSpeechTeacher

    return StoredSpeechTeacher(str(conf["teacher_store"]), teacher)
