"""Options of the firing: of a decoder, and of other CIF heads."""

from collections.abc import Callable, Mapping
from typing import Any

from espnet_cif_hkd.cif.predictor import CIFPredictor
from espnet_cif_hkd.errors import UserError

_PLACE = "decoder_conf: predictor_conf"


def _is_integer(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]


# Whether a value is right, and what it must be.
_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "conv_channels": (
        lambda value: value is None or _is_integer(value),
        "an integer >= 1, or null: as many as the frame has",
    ),
    "conv_width": (
        lambda value: _is_integer(value) and value % 2 == 1,
        "an odd number of frames",
    ),
    "dropout_rate": (_is_share, "a number from 0 to 1"),
    "causal": (lambda value: type(value) is bool, "true or false"),
}
_TAIL = {
    "tail_threshold": (
        lambda value: value is None or _is_share(value),
        "a number from 0 to 1, or null: no tail fires",
    )
}


def build_firing(
    size: int, predictor_conf: Mapping[str, Any] | None
) -> tuple[float | None, CIFPredictor]:
    """Return ``tail_threshold`` and the predictor of a decoder.

    Args:
        size: D, size of an encoder frame.
        predictor_conf: The options in ``decoder_conf``.

    Raises:
        UserError: An option is unknown or wrong.
    """
    conf = checked_options(predictor_conf, _PLACE, {**_OPTIONS, **_TAIL})
    return conf.pop("tail_threshold", 0.5), CIFPredictor(size, **conf)


def build_predictor(
    size: int, conf: Mapping[str, Any] | None, place: str
) -> CIFPredictor:
    """Return a predictor.

    Args:
        size: D, size of a frame.
        conf: Options of :class:`CIFPredictor`; None: none.
        place: Their key in YAML, for messages.

    Raises:
        UserError: An option is unknown or wrong.
    """
    return CIFPredictor(size, **checked_options(conf, place, _OPTIONS))


def checked_options(
    given: Mapping[str, Any] | None,
    place: str,
    known: Mapping[str, tuple[Callable[[Any], bool], str]],
) -> dict[str, Any]:
    """Return given options as a dictionary.

    Args:
        given: The options; None: none.
        place: Their key in YAML, for messages.
        known: For each option whether a value is right, and what it must be.

    Raises:
        UserError: They are no mapping, or an option is unknown or wrong.
    """
    if given is not None and not isinstance(given, Mapping):
        raise UserError(f"{place} is {given!r}; it must hold 'option: value'")
    conf = dict(given or {})
    if unknown := sorted(set(conf) - set(known), key=str):
        raise UserError(
            f"{place} has unknown keys {unknown}; known are {', '.join(sorted(known))}"
        )
    for name, value in conf.items():
        is_right, wanted = known[name]
        if not is_right(value):
            raise UserError(f"{place}.{name} is {value!r}; it must be {wanted}")
    return conf
