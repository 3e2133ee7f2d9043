"""The registry of speech teachers."""

from collections.abc import Mapping
from typing import Any

from espnet_cif_hkd.teachers.registry import TeacherChoices
from espnet_cif_hkd.teachers.speech.base import SpeechTeacher

# Register your own: ``speech_teacher_choices.classes["mine"] = Mine``.
speech_teacher_choices: TeacherChoices[SpeechTeacher] = TeacherChoices(
    {
        "hf": "espnet_cif_hkd.teachers.speech.hf:HFSpeechTeacher",
        "random": "espnet_cif_hkd.teachers.speech.hf:RandomSpeechTeacher",
        "moonshine": "espnet_cif_hkd.teachers.speech.moonshine:MoonshineTeacher",
    },
    SpeechTeacher,  # type: ignore[type-abstract]
    "teacher_type",
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
