"""Checks of a checkpoint before its parameters are loaded."""

import contextlib
import copy
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from espnet_cif_hkd import __version__
from espnet_cif_hkd.errors import UserError, one_line

_DIGEST_KEY = "token_list_digest"
# The version of this package that trained the model; older checkpoints have none.
VERSION_KEY = "package_version"
# Parameters under these prefixes serve training only.
_TRAINING_ONLY = ("criterion.", "criteria.", "schedule.")


def token_list_digest(token_list: Sequence[str]) -> torch.Tensor:
    """Return a hash of a token list: eight bytes as ``(8,)`` float32.

    Each byte is a float, because ESPnet averages checkpoints entry by entry: the mean
    of equal small integers is exact, while ESPnet sums integer entries.
    """
    digest = hashlib.blake2b("\n".join(token_list).encode(), digest_size=8).digest()
    return torch.tensor(list(digest), dtype=torch.float32)


def version_tensor() -> torch.Tensor:
    """Return the version of this package as three floats, ``(3,)`` float32.

    It is stored in the checkpoint, because every way of packing and sharing a model
    includes the checkpoint. Floats: see :func:`token_list_digest`.
    """
    parts = [int(part) for part in re.findall(r"\d+", __version__)[:3]]
    return torch.tensor(parts, dtype=torch.float32)


def made_by(state_dict: Mapping[str, torch.Tensor]) -> str | None:
    """Return the version of this package that trained a checkpoint, such as ``0.1.0``.

    None if it is not recorded. An average of checkpoints of different versions has a
    version only if all parts of the mean are integers.
    """
    found = state_dict.get(VERSION_KEY)
    if found is None or not torch.equal(found.round(), found):
        return None
    return ".".join(str(int(part)) for part in found)


def _kept_together(version: str) -> list[str]:
    """Return the parts of a version that decide on compatibility: two before 1.0."""
    parts = version.split(".")
    return parts[:2] if parts[0] == "0" else parts[:1]


def warn_of_other_version(state_dict: Mapping[str, torch.Tensor]) -> None:
    """Log a warning if an incompatible version may have trained the checkpoint."""
    version = made_by(state_dict)
    if version is not None and _kept_together(version) != _kept_together(__version__):
        logging.warning(
            "the model was trained with espnet-cif-hkd %s, and this is %s: it may "
            "decode differently; install %s to decode as it was evaluated",
            *(version, __version__, version),
        )


def check_state_dict(
    loaded: Mapping[str, torch.Tensor],
    needed: Mapping[str, torch.Tensor],
    token_list: Sequence[str],
) -> None:
    """Check that a checkpoint has all parameters and the tokens of the model.

    Args:
        loaded: State dict of the checkpoint.
        needed: State dict of the model, for its keys.
        token_list: Tokens of the model.

    Raises:
        UserError: If keys that inference needs are missing, or if the checkpoint was
            trained with another token list.
    """
    missing = [
        key
        for key in needed
        if key not in loaded
        and key != VERSION_KEY
        and not key.startswith(_TRAINING_ONLY)
    ]
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise UserError(
            f"the checkpoint lacks {len(missing)} of the keys that inference needs "
            f"({shown}); use the checkpoint and the config.yaml of one training run, "
            "and --init_param FILE:SRC_KEY:DST_KEY to start from parts of another model"
        )
    expected = token_list_digest(token_list)
    found = loaded[_DIGEST_KEY].to(expected)
    if not torch.equal(found, expected):
        raise UserError(
            "the checkpoint was trained with another token list than the "
            f"{len(token_list)} tokens of this configuration; use the config.yaml next "
            "to the checkpoint, or train a new model under another --asr_tag"
        )


def fitting(
    state_dict: Mapping[str, Any], needed: Mapping[str, torch.Tensor]
) -> Mapping[str, Any]:
    """Leave out parameters of criteria that have another shape than in the model.

    They serve training only. Files of a criterion that have changed since, such as the
    token list of a unit, must not prevent decoding.

    Args:
        state_dict: State dict of the checkpoint.
        needed: State dict of the model.
    """
    other = [
        key
        for key, value in state_dict.items()
        if key.startswith(_TRAINING_ONLY)
        and key in needed
        and value.shape != needed[key].shape
    ]
    if not other:
        return state_dict
    logging.info("of another shape and not loaded, training only: %s", other)
    # copy() keeps the attribute with module versions that torch adds to the mapping.
    state_dict = copy.copy(state_dict)
    for key in other:
        del state_dict[key]  # type: ignore[attr-defined]
    return state_dict


@contextlib.contextmanager
def misfit_named() -> Iterator[None]:
    """Report parameters that do not fit the model in one line.

    Raises:
        UserError: Instead of torch's error, which has a line for each parameter.
    """
    try:
        yield
    except RuntimeError as error:
        title, *rest = str(error).splitlines()
        if not title.startswith("Error(s) in loading state_dict") or not rest:
            raise
        more = f" and {len(rest) - 1} more" if len(rest) > 1 else ""
        raise UserError(
            "the checkpoint does not fit the model of this configuration "
            f"({one_line(rest[0], 250)}{more}): continue a training with the options, "
            "token lists and units it began with, or train under another --asr_tag"
        ) from error


def load_checked(
    load: Callable[..., Any],
    model: Any,
    state_dict: dict[str, Any],
    *,
    strict: bool,
    assign: bool,
) -> Any:
    """Load parameters after :func:`check_state_dict`.

    ESPnet loads with ``strict=False`` at inference, so a missing key would leave random
    weights. Only parameters of criteria may be missing.

    Args:
        load: ``load_state_dict`` of the base class of ``model``.
        model: The model, with the buffers :data:`VERSION_KEY` and
            ``token_list_digest``.
        state_dict: The parameters.
        strict, assign: As in torch.

    Raises:
        UserError: If keys are missing or the token list is another one.
    """
    check_state_dict(state_dict, model.state_dict(), model.token_list)
    warn_of_other_version(state_dict)
    # The next checkpoint records the version that trained last. copy() keeps the
    # attribute with module versions that torch adds to the mapping.
    state_dict = copy.copy(state_dict)
    state_dict[VERSION_KEY] = version_tensor()
    result = load(state_dict, strict=strict, assign=assign)
    if result.unexpected_keys and not strict:
        logging.info("not needed and not loaded: %s", result.unexpected_keys)
    return result
