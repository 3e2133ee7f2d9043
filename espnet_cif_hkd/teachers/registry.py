"""The registry of teachers."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import AbsTeacher, TextTeacher

Teacher = TypeVar("Teacher", bound=AbsTeacher[Any])


class TeacherChoices(Generic[Teacher]):
    """Teacher classes by name, similar to ESPnet's ``ClassChoices``.

    Args:
        classes: see ``classes`` below.
        base: the class of which all are subclasses.
        option: the key in YAML, for the message of an unknown name.

    Attributes:
        classes: classes by name, or ``"module:Class"``, which is imported at the first
            use. Register your own: ``teacher_choices.classes["mine"] = Mine``.
    """

    def __init__(
        self,
        classes: Mapping[str, type[Teacher] | str],
        base: type[Teacher],
        option: str,
    ):
        self.classes = dict(classes)
        self._base, self._option = base, option

    def choices(self) -> tuple[str, ...]:
        """Return all names."""
        return tuple(self.classes)

    def get_class(self, name: str) -> type[Teacher]:
        """Return the class of a name; case does not matter.

        Raises:
            UserError: the name is unknown, or the class is no teacher of this kind.
        """
        found: Any = self.classes.get(name) or self.classes.get(name.lower())
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            found = getattr(importlib.import_module(module), attribute)
        if found is None:
            raise UserError(
                f"{self._option} is {name!r}; use one of {', '.join(self.choices())}"
            )
        if not (isinstance(found, type) and issubclass(found, self._base)):
            raise UserError(
                f"teacher_type {name}: {found!r} is no subclass of "
                f"{self._base.__module__}.{self._base.__qualname__}"
            )
        return found


teacher_choices: TeacherChoices[TextTeacher] = TeacherChoices(
    {
        "plm": "espnet_cif_hkd.teachers.text.online:OnlineTeacher",
        "random": "espnet_cif_hkd.teachers.random:RandomTeacher",
    },
    TextTeacher,  # type: ignore[type-abstract]
    "criterion_conf.teacher_type",
)


def build_text_teacher(
    conf: Mapping[str, Any],
    token_list: Sequence[str],
    token_type: str | None = None,
    *,
    stored: bool = True,
) -> TextTeacher:
    """Build the teacher of a ``criterion_conf``; opens nothing.

    Args:
        conf: ``teacher_type`` and the options of that teacher.
        token_list: tokens of the ASR model.
        token_type: token type of the ASR model; None infers it.
        stored: whether to read ``teacher_store``, if it is set, instead of running the
            teacher.

    Raises:
        UserError: an option is missing or wrong.
    """
    kind = teacher_choices.get_class(str(conf.get("teacher_type") or "plm"))
    teacher = kind.from_conf(conf, token_list, token_type)
    if not (stored and conf.get("teacher_store")):
        return teacher
    from espnet_cif_hkd.teachers.store.reader import StoredTeacher

    return StoredTeacher(str(conf["teacher_store"]), teacher)
