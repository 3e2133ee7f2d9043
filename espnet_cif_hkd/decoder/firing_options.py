"""Options of the firing inside ``decoder_conf``."""

from collections.abc import Mapping
from typing import Any

from espnet_cif_hkd.errors import UserError

_PREDICTOR = {"conv_channels", "conv_width", "dropout_rate", "causal"}


def firing_options(
    predictor_conf: Mapping[str, Any] | None,
) -> tuple[float | None, dict[str, Any]]:
    """Return ``tail_threshold`` and the options of :class:`CIFPredictor`.

    Raises:
        UserError: An option is unknown.
    """
    conf = dict(predictor_conf or {})
    tail_threshold = conf.pop("tail_threshold", 0.5)
    if unknown := sorted(set(conf) - _PREDICTOR):
        raise UserError(
            f"decoder_conf: predictor_conf has unknown keys {unknown}; known are "
            f"{', '.join(sorted(_PREDICTOR | {'tail_threshold'}))}"
        )
    return tail_threshold, conf
