"""Options of HKD's two levels in ``criterion_conf``."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.regression import REDUCTIONS

DecoderStates = Literal["output", "joined", "transformer"]


@dataclass(frozen=True)
class AcousticOptions:
    """Options of ACD, the contrastive loss of the fired vectors.

    Attributes:
        weight: Weight of the loss; 0 leaves the level and its projection out.
        temperature: Divisor of the cosines.
        num_negatives: Number of negatives of each fired vector: teacher vectors of
            other tokens, drawn from the batch. If the batch has no more tokens than
            this, 80 % of them; ``all`` (or null): all of them.
        share_negatives: Whether each process of a distributed training draws negatives
            from the tokens of all processes, instead of its own tokens.
    """

    weight: float = 1.0
    temperature: float = 0.02
    num_negatives: int | Literal["all"] | None = 700
    share_negatives: bool = False


@dataclass(frozen=True)
class LinguisticOptions:
    """Options of LRD, the regression of the decoder states.

    Attributes:
        weight: Weight of the loss; 0 leaves the level and its projection out.
        reduction: ``sum`` or ``mean`` of the squared errors over the teacher's
            dimensions.
        states: Decoder states to train. ``output``: the input of the output layer, in
            every model. In ``model: cif``, ``joined`` is the same as ``output``: states
            joined with the fired vector of the token; ``transformer`` are the states
            before that, which depend only on earlier tokens and vectors. In ``model:
            hybrid``, ``transformer`` is the same as ``output``. In ``model:
            transducer``, ``output`` is the output of the prediction network.
    """

    weight: float = 0.01
    reduction: str = "sum"
    states: DecoderStates = "output"


ACOUSTIC: dict[str, Any] = asdict(AcousticOptions())
LINGUISTIC: dict[str, Any] = asdict(LinguisticOptions())
LEVELS = {"acoustic": ACOUSTIC, "linguistic": LINGUISTIC}


def levels(
    acoustic: Mapping[str, Any] | None, linguistic: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the checked options of both levels, with defaults filled in.

    Raises:
        UserError: An option is unknown, of the wrong type or out of range.
    """
    both = (
        level_options("acoustic", acoustic, ACOUSTIC),
        level_options("linguistic", linguistic, LINGUISTIC),
    )
    check_options(*both)
    return both


def wanted_taps(
    acoustic: Mapping[str, Any], linguistic: Mapping[str, Any]
) -> frozenset[str]:
    """Return the taps that both levels read; none for a level of weight 0."""
    wanted = {"fired"} if acoustic["weight"] else set()
    if linguistic["weight"]:
        wanted.add(f"states:{linguistic['states']}")
    return frozenset(wanted)


def level_options(
    name: str, given: Mapping[str, Any] | None, known: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options of a level with defaults filled in; null is weight 0.

    Args:
        name: name of the level, for the message.
        given: value from YAML, of any type.
        known: the defaults.

    Raises:
        UserError: an option is unknown, or ``given`` is no mapping.
    """
    if given is None:
        return {**known, "weight": 0.0}
    if not isinstance(given, Mapping):
        raise UserError(
            f"criterion_conf.{name} is {given!r}; it must hold options, such as "
            "{weight: 1.0}, or be null, which leaves the level out"
        )
    for key in given:
        if key not in known:
            raise UserError(
                f"criterion_conf.{name}: unknown option {key!r}; there are "
                f"{', '.join(known)}"
            )
    options = {**known, **given}
    if options["weight"] is None:
        options["weight"] = 0.0
    if options.get("num_negatives") == "all":
        options["num_negatives"] = None
    return options


def _is_number(value: object) -> bool:
    """Whether a value from YAML is a number; a boolean is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_options(acoustic: Mapping[str, Any], linguistic: Mapping[str, Any]) -> None:
    """Check the values of both levels.

    Raises:
        UserError: a value is of the wrong type or out of range.
    """
    for name, options in (("acoustic", acoustic), ("linguistic", linguistic)):
        weight = options["weight"]
        if not _is_number(weight) or not 0 <= weight < math.inf:
            raise UserError(
                f"criterion_conf.{name}.weight is {weight!r}; it must be a number >= 0"
            )
    temperature, count = acoustic["temperature"], acoustic["num_negatives"]
    if not _is_number(temperature) or not 0 < temperature < math.inf:
        raise UserError(
            f"criterion_conf.acoustic.temperature is {temperature!r}; it must be > 0"
        )
    if count is not None and (type(count) is not int or count < 1):
        raise UserError(
            f"criterion_conf.acoustic.num_negatives is {count!r}; it must be an "
            "integer >= 1, or all"
        )
    if not isinstance(acoustic["share_negatives"], bool):
        raise UserError(
            f"criterion_conf.acoustic.share_negatives is "
            f"{acoustic['share_negatives']!r}; it must be true or false"
        )
    if linguistic["reduction"] not in REDUCTIONS:
        raise UserError(
            f"criterion_conf.linguistic.reduction is {linguistic['reduction']!r}; use "
            f"{' or '.join(REDUCTIONS)}"
        )
    kinds = get_args(DecoderStates)
    if linguistic["states"] not in kinds:
        raise UserError(
            f"criterion_conf.linguistic.states is {linguistic['states']!r}; use "
            f"{' or '.join(kinds)}"
        )
