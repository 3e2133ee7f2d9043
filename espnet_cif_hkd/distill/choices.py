"""The registry of criteria, and the criteria of a configuration."""

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from espnet2.train.class_choices import ClassChoices

from espnet_cif_hkd.distill.criterion import AbsDistillCriterion
from espnet_cif_hkd.distill.frames import FramesCriterion
from espnet_cif_hkd.distill.hkd import HKDCriterion
from espnet_cif_hkd.distill.schedule import CommonOptions
from espnet_cif_hkd.distill.soft_labels import SoftLabelsCriterion
from espnet_cif_hkd.distill.text_only import TextOnlyCriterion
from espnet_cif_hkd.distill.transducer_path import TransducerPathCriterion
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.user_modules import import_user_modules

_NULL = (None, "none", "null", "nil")
_Class = TypeVar("_Class", bound=type[AbsDistillCriterion])


class CriterionChoices(ClassChoices):  # type: ignore[misc]
    """The criteria by their names in YAML; users can register their own."""

    def get_class(self, name: str | None) -> type[AbsDistillCriterion] | None:
        """Return the class of a name in YAML; None for null.

        Raises:
            UserError: No class has this name.
        """
        name = name if name is None else str(name).lower()
        if name in _NULL:
            return None
        if name not in self.classes:
            import_user_modules()
        if name not in self.classes:
            raise UserError(
                f"criterion must be one of {', '.join(self.classes)}, not {name!r}; "
                "--user_module MODULE imports the module that registers another"
            )
        found: type[AbsDistillCriterion] = self.classes[name]
        return found

    def register(self, name: str) -> Callable[[_Class], _Class]:
        """Register the decorated class under ``name``, in lower case.

        Raises:
            UserError: Another class has this name, or the class is no criterion.
        """

        def enter(cls: _Class) -> _Class:
            if not issubclass(cls, AbsDistillCriterion):
                raise UserError(f"{cls.__name__} is no AbsDistillCriterion")
            taken = self.classes.get(name.lower())
            # A module that is imported twice registers its class twice.
            if name.lower() in _NULL or (
                taken is not None and taken.__qualname__ != cls.__qualname__
            ):
                raise UserError(f"the criterion name {name!r} is taken: {taken}")
            self.classes[name.lower()] = cls
            return cls

        return enter


criterion_choices = CriterionChoices(
    "criterion",
    {
        "hkd": HKDCriterion,
        "frames": FramesCriterion,
        "transducer_path": TransducerPathCriterion,
        "soft_labels": SoftLabelsCriterion,
        "text_only": TextOnlyCriterion,
    },
    type_check=AbsDistillCriterion,
    optional=True,
)


@dataclass(frozen=True)
class Configured:
    """A criterion of ``model_conf``.

    Attributes:
        name: Name in ``criteria``; empty for ``model_conf.criterion``.
        kind: ``type`` in YAML, a name in ``criterion_choices``.
        cls: The class.
        conf: The options of the class.
        common: The options that every criterion has.
    """

    name: str
    kind: str
    cls: type[AbsDistillCriterion]
    conf: dict[str, Any]
    common: CommonOptions = field(default_factory=CommonOptions)

    @property
    def label(self) -> str:
        """Name of the criterion in messages."""
        return f"criterion {self.name or self.kind}"

    def naming(self) -> contextlib.AbstractContextManager[None]:
        """Replace ``criterion_conf`` in errors by the key that holds the options."""
        return naming(self.name)


@contextlib.contextmanager
def naming(name: str, always: bool = True) -> Iterator[None]:
    """Replace ``criterion_conf`` in errors by the key that holds the options.

    Args:
        name: Name of the criterion in ``criteria``; empty for a single criterion.
        always: Whether an error without ``criterion_conf`` gets the key in front.
    """
    try:
        yield
    except UserError as error:
        place = f"criteria.{name}"
        text = str(error).replace("criterion_conf", place)
        if not name or (text == str(error) and not always):
            raise
        if place not in text:
            text = f"{place}: {text}"
        raise UserError(text) from error


def configured(model_conf: Mapping[str, Any]) -> list[Configured]:
    """Return the criteria of a model, in the order of the configuration.

    Args:
        model_conf: Either ``criteria``, a mapping from names to ``{type: …, options}``,
            or ``criterion`` and ``criterion_conf`` for a single criterion.

    Raises:
        UserError: Both forms are used, or a criterion is malformed or unknown.
    """
    criteria = model_conf.get("criteria")
    single = model_conf.get("criterion")
    if not criteria:
        cls = criterion_choices.get_class(single)
        if cls is None:
            return []
        conf = _mapping(model_conf.get("criterion_conf"), "criterion_conf")
        return [_configured("", str(single).lower(), cls, conf)]
    if criterion_choices.get_class(single) is not None:
        raise UserError(
            "model_conf has criterion and criteria: move criterion and criterion_conf "
            f"into criteria, as 'NAME: {{type: {single}, …}}'"
        )
    found = []
    for name, options in _mapping(criteria, "criteria").items():
        conf = _mapping(options, f"criteria.{name}")
        if not re.fullmatch(r"[A-Za-z]\w*", str(name)) or hasattr(
            torch.nn.ModuleDict, str(name)
        ):
            raise UserError(
                f"criteria: {name!r} cannot name a criterion: use a letter, then "
                "letters, digits and _"
            )
        kind = conf.pop("type", None)
        if kind in _NULL:
            raise UserError(
                f"criteria.{name} has no type: choose among "
                f"{', '.join(criterion_choices.classes)}"
            )
        cls = criterion_choices.get_class(kind)
        assert cls is not None
        found.append(_configured(str(name), str(kind).lower(), cls, conf))
    return found


def _configured(
    name: str, kind: str, cls: type[AbsDistillCriterion], conf: dict[str, Any]
) -> Configured:
    """Separate the common options from those of the class."""
    found = Configured(name, kind, cls, conf)
    with found.naming():
        common = CommonOptions.take(conf, inspect.signature(cls).parameters)
    return dataclasses.replace(found, common=common)


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{place} is {value!r}; it must hold 'option: value' lines")
    return {str(name): option for name, option in value.items()}
