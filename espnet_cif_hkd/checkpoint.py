"""What must be true of a checkpoint before its parameters are loaded."""

import hashlib
from collections.abc import Mapping, Sequence

import torch

from espnet_cif_hkd.errors import UserError

_DIGEST_KEY = "token_list_digest"
# Parameters under this prefix serve training only.
_TRAINING_ONLY = "criterion."


def token_list_digest(token_list: Sequence[str]) -> torch.Tensor:
    """Eight bytes that name a token list, ``(8,)`` float32.

    Each byte is a float, because ESPnet averages checkpoints entry by entry: the mean
    of equal small integers is exact, while integer entries would be added up.
    """
    digest = hashlib.blake2b("\n".join(token_list).encode(), digest_size=8).digest()
    return torch.tensor(list(digest), dtype=torch.float32)


def check_state_dict(
    loaded: Mapping[str, torch.Tensor],
    needed: Mapping[str, torch.Tensor],
    token_list: Sequence[str],
) -> None:
    """Refuse parameters that would leave the model half loaded or mislabelled.

    Args:
        loaded: What the checkpoint holds.
        needed: The model's own state, for its keys.
        token_list: The model's tokens.

    Raises:
        UserError: If keys that inference needs are missing, or if the checkpoint was
            trained with another token list.
    """
    missing = [
        key
        for key in needed
        if key not in loaded and not key.startswith(_TRAINING_ONLY)
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
