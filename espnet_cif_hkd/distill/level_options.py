"""Options of the levels of the criterion ``soft_labels``, and their checks."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm.labels import TEMPERATURE, TOP_K
from espnet_cif_hkd.teachers.lm.units import UNITS

# Hard losses of each way to map units to frames; the first is the default.
HARD = {
    "alignment": ("frame_ce", "none"),
    "ctc": ("ctc",),
    "cif": ("cif", "none"),
}
POSITIONS = ("all", "middle")
LOGITS = "logits"
# Options of the language model and of the unit, which their own classes check.
LM_OPTIONS = (
    *("lm", "lm_type", "lm_revision", "lm_conf", "temperature", "top_k", "label_store"),
)
UNIT_OPTIONS = (
    *("unit", "unit_token_list", "unit_bpemodel", "lexicon", "unknown_words"),
)
_UNIT_DEFAULTS = {"unit": "token", "unknown_words": "error"}
_LM_DEFAULTS = {"lm_type": "espnet", "temperature": TEMPERATURE, "top_k": TOP_K}


@dataclass(frozen=True)
class LevelOptions:
    """One entry of ``levels``: a head, what it learns, and where.

    The loss of a level is ``weight * ((1 - soft) * HARD + soft * SOFT)``. Options of
    the unit (``unit``, ``unit_token_list``, ``unit_bpemodel``, ``lexicon``,
    ``unknown_words``) and of the language model (``lm``, ``lm_type``, ``lm_revision``,
    ``lm_conf``, ``temperature``, ``top_k``, ``label_store``) are in the same mapping;
    ``soft: 0`` needs no language model.

    Attributes:
        tap: Frames that the head reads: ``hs_pad`` or ``layer:N``. ``logits``: no head,
            but label interpolation on the output of the recogniser; ``unit`` must be
            ``token``, and ``interpolation`` is needed.
        map: How a unit gets its frames. ``alignment``: the frames whose centres are in
            the unit's span of a stored forced alignment. ``ctc``: the frames of the
            unit in the CTC alignment of the head itself, without blank frames. ``cif``:
            a CIF head of its own fires one vector for each unit.
        weight: Weight of the level; 0 leaves it out.
        soft: Share of the soft labels, 0 to 1; 0: hard labels alone. ``map: ctc`` needs
            less than 1, because its alignment comes from the hard loss.
        hard: ``frame_ce``: cross-entropy of each frame, for ``map: alignment``.
            ``ctc``: CTC, for ``map: ctc``. ``cif``: cross-entropy of each unit, for
            ``map: cif``. ``none``: no hard loss, for ``alignment`` and ``cif``. null:
            the one that belongs to ``map``. A level has no other hard loss: for soft
            labels on a stored alignment beside CTC use two levels.
        interpolation: Share of the soft labels in the loss of the recogniser's own
            output, 0 to 1; only for ``tap: logits``. The label of ``<eos>`` stays hard.
            For ``model: transducer``: weight of the soft loss on its best path.
        alignment: CTM file with the units, for ``map: alignment``.
        max_missing: Largest share of utterances, in percent, that may lack an
            alignment, or have too few frames for CTC. They are left out of the level.
        position: Frames of a unit that learn its soft label with ``map: ctc``: ``all``,
            or the ``middle`` one.
        quantity_weight: Weight of ``|sum of alpha - units|`` inside the level, for
            ``map: cif``.
        predictor_conf: Options of the weight predictor of ``map: cif``, as in
            ``decoder_conf``.
        student_temperature: Divides the logits of the head in the soft loss; the
            gradient of a row gets 1 / temperature times its size.
        square_temperature: Whether the soft loss is multiplied by the square of
            ``student_temperature``.
    """

    tap: str
    map: str = "ctc"
    weight: float = 0.3
    soft: float = 0.5
    hard: str | None = None
    interpolation: float | None = None
    alignment: str | None = None
    max_missing: float = 10.0
    position: str = "all"
    quantity_weight: float = 1.0
    predictor_conf: Mapping[str, Any] | None = None
    student_temperature: float = 1.0
    square_temperature: bool = False


@dataclass(frozen=True)
class Level:
    """A level with its name and the options of its unit and its language model.

    Attributes:
        name: Name in YAML and in the log.
        options: The options of the head.
        unit: Options of the unit.
        lm: Options of the language model.
    """

    name: str
    options: LevelOptions
    unit: dict[str, Any] = field(default_factory=dict)
    lm: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Its key in YAML, for messages."""
        return _place(self.name)

    @property
    def is_output(self) -> bool:
        """Whether it is label interpolation."""
        return self.options.tap == LOGITS

    @property
    def is_soft(self) -> bool:
        """Whether it needs a language model."""
        if self.is_output:
            return self.is_used
        return self.is_used and self.options.soft > 0

    @property
    def is_used(self) -> bool:
        """Whether it has a loss."""
        one = self.options
        return bool(one.interpolation if self.is_output else one.weight)

    @property
    def store(self) -> str | None:
        """Folder of its stored labels."""
        found = self.lm.get("label_store")
        return str(found) if found else None


def _place(name: str) -> str:
    return f"criterion_conf.levels.{name}"


def level_options(levels: Any) -> list[Level]:
    """Return the levels of a criterion.

    Raises:
        UserError: There is none, or an option is unknown or wrong.
    """
    if not isinstance(levels, Mapping) or not levels:
        raise UserError(
            f"criterion_conf.levels is {levels!r}; write one line for each level: "
            "'NAME: {tap: layer:4, unit: …, lm: …}'"
        )
    found: list[Level] = []
    for name, options in levels.items():
        one = _level(str(name), options)
        for other in found:
            _check_pair(one, other)
        found.append(one)
    return found


def _level(name: str, given: Any) -> Level:
    place = _place(name)
    if not name.isidentifier() or hasattr(torch.nn.ModuleDict, name):
        raise UserError(
            f"{place}: this cannot name a level: use a letter, then letters, digits "
            "and _"
        )
    if not isinstance(given, Mapping):
        raise UserError(f"{place} is {given!r}; it must hold 'option: value'")
    ours = [item.name for item in fields(LevelOptions)]
    for option in sorted(set(given) - {*ours, *LM_OPTIONS, *UNIT_OPTIONS}, key=str):
        raise UserError(
            f"{place}: {option!r} is unknown; the options are "
            f"{', '.join((*ours, *UNIT_OPTIONS, *LM_OPTIONS))}"
        )
    if not given.get("tap"):
        raise UserError(f"{place}.tap is not set; use layer:N, hs_pad or logits")
    conf = {option: given[option] for option in ours if option in given}
    unit, lm = (
        {option: given[option] for option in names if option in given}
        for names in (UNIT_OPTIONS, LM_OPTIONS)
    )
    level = Level(name, LevelOptions(**{**conf, "tap": str(given["tap"])}), unit, lm)
    _check_numbers(place, level.options)
    if level.is_output:
        _check_output(place, given)
    else:
        _check_head(place, level.options)
        if unit.get("unit") not in UNITS:
            raise UserError(
                f"{place}.unit is {unit.get('unit')!r}; use one of {', '.join(UNITS)}"
            )
        if unit["unit"] == "aligned" and level.options.map != "alignment":
            raise UserError(
                f"{place}: unit: aligned has labels in an alignment only: set map: "
                "alignment and alignment: FILE.ctm, or another unit"
            )
    return level


def _check_numbers(place: str, options: LevelOptions) -> None:
    limits = {"soft": 1.0, "interpolation": 1.0, "max_missing": 100.0}
    for name in (*limits, "weight", "quantity_weight", "student_temperature"):
        value = getattr(options, name)
        if value is None and name == "interpolation":
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        highest = limits.get(name, sys.float_info.max)
        above = name == "student_temperature"
        if not number or not 0 <= value <= highest or (above and value == 0):
            wanted = f"0 to {highest:g}" if name in limits else "at least 0"
            if above:
                wanted = "above 0"
            raise UserError(f"{place}.{name} is {value!r}; give a number {wanted}")
    if not isinstance(options.square_temperature, bool):
        raise UserError(
            f"{place}.square_temperature is {options.square_temperature!r}; use true "
            "or false"
        )


def _check_output(place: str, given: Mapping[str, Any]) -> None:
    """Check the options of label interpolation."""
    if given.get("interpolation") is None:
        raise UserError(
            f"{place}: tap: logits is label interpolation: set interpolation: 0.3, or "
            "another tap for an auxiliary head"
        )
    if (given.get("unit") or "token") != "token":
        raise UserError(
            f"{place}: label interpolation needs the recogniser's own tokens: set unit:"
            f" token instead of {given['unit']}"
        )
    allowed = {"tap", "interpolation", "unit", *LM_OPTIONS}
    for option in given:
        if option not in allowed:
            raise UserError(
                f"{place}: tap: logits has no option {option}; its options are "
                f"{', '.join(sorted(allowed))}"
            )


def _check_head(place: str, options: LevelOptions) -> None:
    """Check the options of an auxiliary head."""
    kind, _, layer = options.tap.partition(":")
    if options.tap != "hs_pad" and not (kind == "layer" and layer.isdecimal()):
        raise UserError(
            f"{place}.tap is {options.tap!r}; use hs_pad, layer:N, or logits with "
            "interpolation"
        )
    if options.interpolation is not None:
        raise UserError(f"{place}.interpolation is only for tap: logits; use soft")
    for name, value, choices in (
        ("map", options.map, tuple(HARD)),
        ("position", options.position, POSITIONS),
        ("hard", options.hard, (None, *HARD.get(str(options.map), ()))),
    ):
        if value not in choices:
            listed = ", ".join(str(choice) for choice in choices if choice is not None)
            with_map = f" with map: {options.map}" if name == "hard" else ""
            raise UserError(
                f"{place}.{name} is {value!r}; use one of {listed}{with_map}"
            )
    if options.map == "alignment" and not options.alignment:
        raise UserError(f"{place}: map: alignment needs alignment: FILE.ctm")
    if options.map == "ctc" and options.soft == 1:
        raise UserError(
            f"{place}: map: ctc aligns by its own hard loss, which soft: 1 switches "
            "off: use soft less than 1, or map: cif or alignment"
        )
    if options.hard == "none" and options.soft == 0:
        raise UserError(f"{place}: hard: none and soft: 0 leave no loss; change one")
    if options.predictor_conf is not None and not isinstance(
        options.predictor_conf, Mapping
    ):
        raise UserError(
            f"{place}.predictor_conf is {options.predictor_conf!r}; it must hold "
            "'option: value'"
        )


def _check_pair(one: Level, other: Level) -> None:
    """Refuse two levels that are the same, or that cannot share their store."""
    if one.options.tap == other.options.tap and one.is_output:
        raise UserError(
            f"{one.place}: {other.name} interpolates the labels, too; remove one of "
            "the two"
        )
    ours, theirs = _complete(one), _complete(other)
    if ours == theirs:
        raise UserError(
            f"{one.place}: has the same options as {other.name}; remove one of the two"
        )
    if one.store and one.store == other.store and ours[1:] != theirs[1:]:
        raise UserError(
            f"{one.place}: has the same label_store as {other.name}, but another unit "
            "or language model; give each its own folder"
        )


def _complete(level: Level) -> tuple[LevelOptions, dict[str, Any], dict[str, Any]]:
    """Return the options of head, unit and language model with their defaults."""
    unit, lm = (
        {**defaults, **{key: value for key, value in given.items() if value}}
        for defaults, given in (
            (_UNIT_DEFAULTS, level.unit),
            (_LM_DEFAULTS, level.lm),
        )
    )
    if unit["unit"] == "token":  # no other option of the unit matters
        unit = {"unit": "token"}
    options = level.options
    if not level.is_output:
        options = replace(options, hard=options.hard or HARD[options.map][0])
    return options, unit, lm
