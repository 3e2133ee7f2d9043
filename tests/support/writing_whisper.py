"""A random Whisper with its decoder and a tokenizer of a few words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_whisper import WIDTH

WORDS = ["so", "far", "good", "and", "on"]
_SPECIAL = [
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>"),
    "<|notimestamps|>",
]
END, EARLIER = 0, "<|startofprev|>"


def tone(n: int, rate: int = 16000) -> np.ndarray:
    """A tone, the higher and longer the greater ``n`` is: (S,) float32."""
    times = np.arange(round((0.4 + 0.3 * n) * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 150 * 2 ** (0.8 * n) * times)
    return wave.astype(np.float32)


def writing_config(vocabulary: int, end: int, **options: Any) -> Any:
    """Return the ``WhisperConfig`` of a small Whisper that reads 3 s and writes.

    Args:
        vocabulary: Number of tokens.
        end: Token of the end.
        options: In place of those here.
    """
    from transformers import WhisperConfig

    config: dict[str, Any] = {
        "vocab_size": vocabulary,
        "num_mel_bins": 8,
        "d_model": WIDTH,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "max_source_positions": 150,
        "max_target_positions": 60,
        "pad_token_id": end,
        "bos_token_id": end,
        "eos_token_id": end,
        "decoder_start_token_id": 1,
        "begin_suppress_tokens": None,
    }
    return WhisperConfig(**{**config, **options})


def build_writing_whisper(folder: Path, *, end: float = 0.3, seed: int = 3) -> Path:
    """Write a Whisper that reads 3 s and writes :data:`WORDS`.

    By default it has several texts for eight tones.

    Args:
        folder: To write.
        end: What the logit of the end of the text gets in addition.
        seed: Of the weights.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    vocabulary = {word: n for n, word in enumerate([*_SPECIAL, *WORDS, EARLIER])}
    config = writing_config(len(vocabulary) - 1, END)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WhisperForConditionalGeneration(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        model.resize_token_embeddings(len(vocabulary), mean_resizing=False)
    with torch.no_grad():
        # The text depends on the audio and on the number of words.
        for layer in model.model.decoder.layers:
            layer.encoder_attn.v_proj.weight *= 2
            layer.encoder_attn.out_proj.weight *= 2
        model.model.decoder.embed_positions.weight *= 2
        # The projection of the words has no bias: the last norm has one.
        words = model.model.decoder.embed_tokens.weight
        words[:, 0] = 0.0
        words[END, 0] = end
        words[[*range(1, len(_SPECIAL)), vocabulary[EARLIER]], 0] = -100.0
        model.model.decoder.layer_norm.weight[0] = 0.0
        model.model.decoder.layer_norm.bias[0] = 1.0
    model.save_pretrained(folder, safe_serialization=True)
    WhisperFeatureExtractor(feature_size=8, chunk_length=3).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([*_SPECIAL, EARLIER])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def change_config(folder: Path, **values: object) -> None:
    """Change values of ``config.json``."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
