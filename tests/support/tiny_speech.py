"""A tiny model with a frontend, its files, and noise for it to decode."""

import numpy as np
import torch
import yaml
from tiny_model import tiny_config, tiny_model

RATE = 8000


CHANGES = {
    "input_size": None,
    "frontend": "default",
    "frontend_conf": {"fs": RATE, "n_fft": 256, "hop_length": 80, "n_mels": 8},
    "encoder_conf": {
        "input_layer": "conv2d",
        "output_size": 8,
        "attention_heads": 2,
        "linear_units": 16,
        "num_blocks": 1,
    },
}


def noise(seconds, seed=0):
    samples = np.random.default_rng(seed).normal(0, 0.1, int(RATE * seconds))
    return samples.astype(np.float32)


def model_files(folder, **changes):
    """Write the tiny model's configuration and parameters; returns both paths."""
    config, parameters = folder / "config.yaml", folder / "1epoch.pth"
    config.write_text(yaml.safe_dump(tiny_config(token_type="char", **changes)))
    torch.save(tiny_model(**changes).state_dict(), parameters)
    return str(config), str(parameters)
