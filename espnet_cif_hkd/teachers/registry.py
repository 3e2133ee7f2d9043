"""The teachers by name; a user's own ones are registered here."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import TextTeacher


class TeacherChoices:
    """Classes by name, in the manner of ESPnet's ``ClassChoices``.

    Attributes:
        classes: the class of each name, or ``"module:Class"``, which is imported when
            it is asked for. Add your own: ``teacher_choices.classes["mine"] = Mine``.
    """

    def __init__(self, classes: Mapping[str, type[TextTeacher] | str]):
        self.classes = dict(classes)

    def choices(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self.classes)

    def get_class(self, name: str) -> type[TextTeacher]:
        """The class of a name, in upper or lower case.

        Raises:
            UserError: there is no such name, or it is no text teacher.
        """
        found = self.classes.get(name) or self.classes.get(name.lower())
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            found = getattr(importlib.import_module(module), attribute)
        if found is None:
            raise UserError(
                f"criterion_conf.teacher_type is {name!r}; use one of "
                f"{', '.join(self.choices())}"
            )
        if not (isinstance(found, type) and issubclass(found, TextTeacher)):
            raise UserError(
                f"teacher_type {name}: {found!r} is no subclass of "
                "espnet_cif_hkd.teachers.base.TextTeacher"
            )
        return found


teacher_choices = TeacherChoices(
    {
        "plm": "espnet_cif_hkd.teachers.text.online:OnlineTeacher",
        "random": "espnet_cif_hkd.teachers.random:RandomTeacher",
    }
)


def build_text_teacher(
    conf: Mapping[str, Any],
    token_list: Sequence[str],
    token_type: str | None = None,
    *,
    stored: bool = True,
) -> TextTeacher:
    """The teacher that a ``criterion_conf`` describes; opens nothing.

    Args:
        conf: ``teacher_type`` and the options of that teacher.
        token_list: of the ASR model.
        token_type: of the ASR model; None infers it.
        stored: whether to read ``teacher_store``, where it is set, instead of running
            the teacher.

    Raises:
        UserError: an option is missing or wrong.
    """
    kind = teacher_choices.get_class(str(conf.get("teacher_type") or "plm"))
    teacher = kind.from_conf(conf, token_list, token_type)
    if not (stored and conf.get("teacher_store")):
        return teacher
    from espnet_cif_hkd.teachers.store.reader import StoredTeacher

    return StoredTeacher(str(conf["teacher_store"]), teacher)
