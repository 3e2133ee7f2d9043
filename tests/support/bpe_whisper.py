"""A random Whisper with a byte-level BPE tokenizer, whose merges a text teaches it."""

from pathlib import Path
from typing import Any

import torch
from writing_whisper import writing_config

SPECIAL = [
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|transcribe|>"),
    "<|notimestamps|>",
]


def build_tokenizer(path: Path, texts: list[str], size: int = 340) -> Path:
    """Write ``tokenizer.json``; special tokens come last, as Whisper's.

    Args:
        path: To write.
        texts: Trains the merges.
        size: Number of tokens without the special ones, more than 256.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f" {text}" for text in texts], trainer)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(path))
    return path


def random_whisper(vocabulary: int, end: int, **options: Any) -> Any:
    """Return a ``WhisperForConditionalGeneration`` of width 8.

    Args:
        vocabulary: Number of tokens.
        end: Token of the end.
        options: Of ``WhisperConfig``.
    """
    from transformers import WhisperForConditionalGeneration

    sizes = {"d_model": 8, "decoder_layers": 2, "max_target_positions": 63}
    config = writing_config(vocabulary, end, **{**sizes, **options})
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = WhisperForConditionalGeneration(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.6)
    return model


def build_bpe_whisper(
    folder: Path, texts: list[str], size: int = 280, seconds: int = 3
) -> Path:
    """Write a random Whisper and its tokenizer.

    Args:
        folder: To write.
        texts: Of build_tokenizer.
        size: Of build_tokenizer.
        seconds: Longest audio that it reads.
    """
    from transformers import WhisperFeatureExtractor

    longest = {"max_source_positions": 50 * seconds}
    longest["max_target_positions"] = 21 * seconds
    random_whisper(size + len(SPECIAL), size, **longest).save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=seconds)
    extractor.save_pretrained(folder)
    build_tokenizer(folder / "tokenizer.json", texts, size)
    return folder
