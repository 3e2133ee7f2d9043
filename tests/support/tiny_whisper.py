"""A random Whisper of some thousand parameters, and recordings for it."""

from pathlib import Path

import numpy as np
import torch

WIDTH = 12
LAYERS = 2
RATE = 16000
# Samples of a frame: two spectra of 10 ms.
FRAME = 320


def build_tiny_whisper(folder: Path, seed: int = 0, width: int = WIDTH) -> str:
    """Write a Whisper with 2 layers and 8 mel bands to ``folder``."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    config = WhisperConfig(
        vocab_size=20,
        num_mel_bins=8,
        d_model=width,
        encoder_layers=LAYERS,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_source_positions=150,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WhisperModel(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder, safe_serialization=True)
    WhisperFeatureExtractor(feature_size=8, chunk_length=3).save_pretrained(folder)
    return str(folder)


def speech(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Noise of 16 bits as a reader of sound files returns it: (S,) float32."""
    rng = np.random.default_rng(seed)
    coded = np.rint(3000 * rng.standard_normal(round(seconds * rate)))
    return (coded / 32768).astype(np.float32)


def padded(waves: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of recordings as the training has it: (B, S), (B,)."""
    tensors = [torch.from_numpy(wave) for wave in waves]
    lengths = torch.tensor([len(wave) for wave in waves])
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), lengths
