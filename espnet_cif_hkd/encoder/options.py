"""Checks of the options of ``cif_conformer``."""

from collections.abc import Sequence
from typing import Any

from espnet_cif_hkd.errors import UserError

# Options of ESPnet's ConformerEncoder with one supported value. A configuration for
# ESPnet's conformer may contain them and needs no change.
_FIXED: dict[str, Any] = {
    "normalize_before": True,
    "concat_after": False,
    "positionwise_layer_type": "linear",
    "rel_pos_type": "latest",
    "pos_enc_layer_type": "rel_pos",
    "selfattention_layer_type": "rel_selfattn",
    "use_cnn_module": True,
    "zero_triu": False,
    "interctc_layer_idx": [],
    "interctc_use_conditioning": False,
    "ctc_trim": False,
    "stochastic_depth_rate": 0.0,
    "layer_drop_rate": 0.0,
    "qk_norm": False,
    "use_sdpa": False,
}
# Without effect in ESPnet, too, if the options above have these values.
_IDLE = {"positionwise_conv_kernel_size", "padding_idx", "use_flash_attn"}


def check_espnet_options(options: dict[str, Any]) -> None:
    """Accept options of ESPnet's conformer with the values that are supported here.

    Raises:
        UserError: If an option is unknown or has another value.
    """
    for name, value in options.items():
        if name in _IDLE:
            continue
        if name not in _FIXED:
            raise UserError(
                f"encoder_conf: cif_conformer has no option {name}; "
                "docs/configuration.md lists its options"
            )
        if (list(value) if isinstance(value, tuple) else value) != _FIXED[name]:
            raise UserError(
                f"encoder_conf: cif_conformer supports only {name}: {_FIXED[name]}, "
                f"not {value}; remove the option, or use encoder: conformer"
            )


def check_count(name: str, value: object) -> None:
    """Accept integers from 1.

    Raises:
        UserError: For other values; YAML reads a number in quotes as text.
    """
    if type(value) is not int or value < 1:
        raise UserError(f"encoder_conf: {name} {value!r} must be an integer >= 1")


def check_flag(name: str, value: object) -> None:
    """Accept true and false.

    Raises:
        UserError: For other values, such as text.
    """
    if type(value) is not bool:
        raise UserError(f"encoder_conf: {name} {value!r} must be true or false")


def check_pooling(pooling_layers: Sequence[int], num_blocks: int) -> tuple[int, ...]:
    """Return the numbers of the blocks after which frames are pooled.

    Raises:
        UserError: If they are not different integers from 1 to ``num_blocks``.
    """
    given = pooling_layers
    if (
        not isinstance(given, list | tuple)
        or not all(type(number) is int for number in given)
        or not all(1 <= number <= num_blocks for number in given)
        or len(set(given)) < len(given)
    ):
        raise UserError(
            f"encoder_conf: pooling_layers {given!r} must be a list of different "
            f"block numbers from 1 to num_blocks {num_blocks}, such as [5, 10], or []"
        )
    return tuple(given)
