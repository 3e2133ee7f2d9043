"""Small ``cif_conformer`` encoders, batches for them, and their output put to use."""

import torch

from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder

FEATURES = 9


def tiny_conformer(seed=0, features=FEATURES, **changes):
    """An encoder without dropout in float64, its weights and statistics not initial."""
    options = {
        "output_size": 8,
        "attention_heads": 2,
        "linear_units": 12,
        "num_blocks": 4,
        "pooling_layers": [1, 3],
        "input_channels": 3,
        "cnn_module_kernel": 5,
        "dropout_rate": 0.0,
        "attention_dropout_rate": 0.0,
    }
    # torch.manual_seed keeps a stack trace for GPUs, which takes milliseconds.
    torch.default_generator.manual_seed(seed)
    encoder = CIFConformerEncoder(features, **(options | changes)).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, value in encoder.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator).double()
                value.add_(noise.abs() if name.endswith("running_var") else 0.1 * noise)
    return encoder


def random_utterances(lengths, seed=0, features=FEATURES):
    """Features of these lengths, ``(F, C)`` float64."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(length, features, generator=generator).double()
        for length in lengths
    ]


def padded(utterances, extra=0, value=0.0):
    """The utterances as a batch, ``extra`` frames longer than the longest."""
    lengths = torch.tensor([len(features) for features in utterances])
    batch = torch.full(
        (len(utterances), int(lengths.max()) + extra, utterances[0].size(1)),
        value,
        dtype=utterances[0].dtype,
    )
    for row, features in zip(batch, utterances, strict=True):
        row[: len(features)] = features
    return batch, lengths


def unpadded(hs_pad, olens):
    """Each utterance's own frames."""
    return [hs[:length] for hs, length in zip(hs_pad, olens.tolist(), strict=True)]


def weighed_sum(outputs):
    """A number that every frame and channel of the outputs enters differently."""
    total = 0.0
    for frames in outputs:
        weights = torch.arange(frames.numel(), dtype=torch.float64).sin()
        total = total + (frames.double().flatten() * weights).sum()
    return total


def gradients(encoder, loss, *inputs):
    """Gradients of a loss by parameter name, and of inputs by position."""
    names, parameters = zip(*encoder.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, [*parameters, *inputs])
    keys = [*names, *range(len(inputs))]
    return dict(zip(keys, found, strict=True))
