"""Tiny teachers of other kinds than BERT: tokenizers that mark spaces, other models."""

from pathlib import Path
from typing import Any

HIDDEN = 12
LAYERS = 2
PIECES = ["▁", "▁the", "cat", "▁cat", "s", *"你好世界", "世界", *"thecas"]


def tokenizer_of(kind: str) -> Any:
    """A ``tokenizers.Tokenizer`` by the way in which it marks spaces.

    ``metaspace-always``, ``-first``, ``-never``; ``xlmr``, which splits at spaces
    first; ``prepend``, a normaliser as Llama has; ``bytes``, ``bytes-prefix`` and
    ``bytes-untrimmed``, byte-level BPE.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    if kind.startswith("bytes"):
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        names = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, "th", "the", "Ġthe"]
        vocab = {name: n for n, name in enumerate(names)}
        merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
        made = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(
            add_prefix_space=kind == "bytes-prefix", use_regex=True
        )
        made.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), trim_offsets=kind != "bytes-untrimmed"
        )
        return made
    names = ["<s>", "<pad>", "</s>", "<unk>", *dict.fromkeys(PIECES)]
    scores = [(name, -2.0 if len(name) > 1 else -3.0) for name in names]
    made = Tokenizer(models.Unigram(scores, 3, False))
    if kind == "xlmr":
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        )
    elif kind == "prepend":
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        scheme = kind.partition("-")[2]
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return made


def fast_tokenizer(kind: str = "xlmr", limit: int | None = None, **changes: Any) -> Any:
    """It as a fast Hugging Face tokenizer."""
    from transformers import PreTrainedTokenizerFast

    names = {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
    }
    if limit is not None:
        names["model_max_length"] = limit
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_of(kind), **{**names, **changes}
    )


def save_teacher(folder: Path, model: Any, tokenizer: Any = None) -> str:
    """Write a model with random weights of some size, and a tokenizer."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder, safe_serialization=True)
    (tokenizer or fast_tokenizer()).save_pretrained(folder)
    return str(folder)
