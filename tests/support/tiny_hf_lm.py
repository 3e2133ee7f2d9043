"""Tiny causal and masked LMs of Hugging Face with random weights."""

from pathlib import Path
from typing import Any

from tiny_bert import build_tiny_bert
from tiny_teachers import fast_tokenizer, save_teacher

SMALL: dict[str, Any] = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def save_lm(folder: Path, kind: str, tokenizer: Any, positions: int = 48) -> str:
    """Write an LM of a class of transformers, such as ``Bert`` or ``GPT2``."""
    import transformers

    size: dict[str, Any] = {**SMALL, "max_position_embeddings": positions}
    if kind == "GPT2":
        size = {"n_embd": 12, "n_layer": 2, "n_head": 2, "n_positions": positions}
    if kind == "DistilBert":
        size = {"dim": 12, "n_layers": 2, "n_heads": 2, "hidden_dim": 16}
        size["max_position_embeddings"] = positions
    head = "LMHeadModel" if kind == "GPT2" else "ForMaskedLM"
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **size
    )
    config.tie_word_embeddings = False
    model = getattr(transformers, f"{kind}{head}")(config)
    return save_teacher(folder, model, tokenizer)


def build_masked(folder: Path, kind: str = "Bert", positions: int = 48) -> str:
    """Write a masked LM with the WordPiece tokenizer of tiny_bert."""
    from transformers import AutoTokenizer

    build_tiny_bert(folder / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    return save_lm(folder, kind, tokenizer, positions)


def build_causal(folder: Path, marks: str = "bytes", positions: int = 48) -> str:
    """Write a GPT-2 with a tokenizer of tiny_teachers."""
    tokenizer = fast_tokenizer(marks)
    return save_lm(folder, "GPT2", tokenizer, positions)
