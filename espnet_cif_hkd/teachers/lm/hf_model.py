"""Opens and runs the networks of language models of Hugging Face."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.text import plm
from espnet_cif_hkd.teachers.text.files import incomplete

# Special tokens before a text, for causal LMs, the best first.
OPENINGS = ("bos", "eos", "cls", "sep")
_LOGITS = 1 << 26  # in memory together: 256 MiB
_TOLERANCE = 1e-3  # of logits; rounding of float32 causes about 1e-5


def load(config: plm.TeacherConfig, auto_class: str) -> Any:
    """Return the model in float32, without gradients, in evaluation mode.

    Args:
        config: Where it is.
        auto_class: Class of transformers, such as ``AutoModelForCausalLM``.

    Raises:
        UserError: A file is missing or damaged.
    """
    import transformers

    place = plm.fixed_place(config)
    folder = Path(place)
    safe = any(folder.glob("*.safetensors")) if folder.is_dir() else None
    try:
        model, report = getattr(transformers, auto_class).from_pretrained(
            place,
            revision=config.revision,
            trust_remote_code=False,
            use_safetensors=safe,
            output_loading_info=True,
            dtype=torch.float32,
        )
    # Readers of damaged files raise errors of many types.
    except Exception as e:
        raise plm.cannot_open(config, "weights", e) from e
    missing = sorted(key for key in report["missing_keys"] if "pooler." not in key)
    if missing:
        raise incomplete(config, missing)
    return model.requires_grad_(False).eval()


def special_token(name: str, tokenizer: Any, *kinds: str) -> int:
    """Return the id of the first special token that the tokenizer has.

    Raises:
        UserError: It has none of them.
    """
    for kind in kinds:
        found = getattr(tokenizer, f"{kind}_token_id", None)
        if found is not None:
            return int(found)
    raise UserError(
        f"lm {name}: its tokenizer has no {' or '.join(kinds)} token; correct its "
        "tokenizer_config.json, or choose another LM"
    )


def require_causal(name: str, model: Any, tokens: np.ndarray) -> None:
    """Check that a token has no influence on the logits before it.

    Args:
        name: The LM, for the message.
        model: The LM.
        tokens: Ids of some of its tokens, at least two different ones.

    Raises:
        UserError: A token has an influence, so the LM is not causal.
    """
    some = np.unique(tokens)[:3]
    ids = np.repeat(some[:1], 4)[None].repeat(2, 0)  # (2, 4)
    ids[1, 3] = some[-1]
    with torch.inference_mode():
        one, other = run(model, ids, ids >= 0)[:, :3]
    if float((one - other).abs().max()) > _TOLERANCE * float(one.abs().max()):
        raise UserError(
            f"lm {name} ({type(model).__name__}): reads the units after the one that "
            "it predicts, so it is no causal LM"
        )


def run(model: Any, ids: np.ndarray, valid: np.ndarray) -> Tensor:
    """Run an LM on padded tokens (B, W); return its logits (B, W, vocabulary)."""
    device = model.device
    mask = on_device(valid.astype(np.int64), device)
    return model(input_ids=on_device(ids, device), attention_mask=mask).logits


def places_in_memory(model: Any) -> int:
    """Return of how many positions the logits take 256 MiB at most; at least 1."""
    return int(max(1, _LOGITS // model.get_input_embeddings().weight.shape[0]))


def logits_at(
    model: Any, ids: np.ndarray, valid: np.ndarray, rows: np.ndarray, at: np.ndarray
) -> Tensor:
    """Run an LM on padded tokens; its output layer computes some positions only.

    The output layer has the size of the vocabulary.

    Args:
        model: The LM.
        ids, valid: (B, W) tokens, and which places hold some.
        rows, at: (N,) the positions, ``at`` of ``rows``.

    Returns:
        Logits (N, vocabulary).
    """
    places = on_device(rows, model.device), on_device(at, model.device)

    def reduced(module: Any, inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output[0][places][:, None]  # of (B, W, C)
        return output

    base = model.base_model
    handle = None if base is model else base.register_forward_hook(reduced)
    try:
        logits = run(model, ids, valid)
    finally:
        if handle is not None:
            handle.remove()
    if logits.size(1) > 1:  # the output layer has computed all positions
        return logits[places]
    return logits[:, 0]
