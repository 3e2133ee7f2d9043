"""``cif_conformer`` once more, to be read: utterance by utterance, never padded.

Takes the modules of a real encoder, and does by plain means what the encoder does by
masks: every utterance alone and at its own length, convolutions over its frames only,
batch statistics over the frames of all utterances put in one row, pooling pair by pair.
Only ESPnet's attention and feed-forward are called as they are, without a mask.
"""

import torch
from torch.nn.functional import conv1d, glu

from espnet_cif_hkd.encoder.frames import PAPER_INPUT
from espnet_cif_hkd.encoder.front_end import Scale


def encode(encoder, utterances):
    """Encode a list of features ``(F, C)``: a list of ``(T, D)``."""
    xs = [front_end(encoder, features) for features in utterances]
    for number, block in enumerate(encoder.encoders, start=1):
        xs = run_block(encoder, block, xs)
        if number in encoder.pooling_layers:
            xs = [pool(frames) for frames in xs]
    if encoder.after_norm is not None:
        xs = [encoder.after_norm(frames) for frames in xs]
    return xs


def front_end(encoder, features):
    embed = encoder.embed
    if encoder.input_layer == PAPER_INPUT:
        planes = torch.relu(embed.conv(features[None, None]))[0]  # (C, T, bands)
        rows = [planes[:, t].flatten() for t in range(planes.size(1))]
        scaled = embed.linear(torch.stack(rows)) * encoder.output_size() ** 0.5
        return embed.project(scaled)
    if encoder.input_layer is None or encoder.input_layer == "linear":
        return embed(features[None])[0]
    assert any(isinstance(module, Scale) for module in embed.modules())
    return embed(features[None], None)[0][0]


def run_block(encoder, block, xs):
    if block.feed_forward_macaron is not None:
        xs = [
            x + block.ff_scale * block.feed_forward_macaron(block.norm_ff_macaron(x))
            for x in xs
        ]
    xs = [x + attend(encoder, block, block.norm_mha(x)) for x in xs]
    convolved = convolve(block.conv_module, [block.norm_conv(x) for x in xs])
    xs = [x + y for x, y in zip(xs, convolved, strict=True)]
    xs = [x + block.ff_scale * block.feed_forward(block.norm_ff(x)) for x in xs]
    return [block.norm_final(x) for x in xs]


def attend(encoder, block, x):
    positions = range(len(x) - 1, -len(x), -1)
    size = encoder.output_size()
    angles = torch.tensor(
        [[p / 10000 ** (2 * k / size) for k in range(size // 2)] for p in positions]
    )
    vectors = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    keys = x[None]
    return block.self_attn(keys, keys, keys, vectors[None].to(x), None)[0]


def convolve(module, xs):
    convolved = []
    for x in xs:
        gated = glu(module.pointwise_conv1(x.T[None]), dim=1)
        depthwise = module.depthwise_conv
        convolved.append(
            conv1d(
                gated,
                depthwise.weight,
                depthwise.bias,
                padding=depthwise.kernel_size[0] // 2,
                groups=depthwise.groups,
            )[0]
        )
    norm = module.norm
    row = torch.cat(convolved, dim=1)  # (D, all frames)
    if norm.training:
        mean, variance = row.mean(dim=1), row.var(dim=1, unbiased=False)
    else:
        mean, variance = norm.running_mean, norm.running_var
    row = (row - mean[:, None]) / (variance[:, None] + norm.eps) ** 0.5
    row = row * norm.weight[:, None] + norm.bias[:, None]
    activated = module.activation(row)
    ends = torch.tensor([y.size(1) for y in convolved]).cumsum(0)
    pieces = activated.tensor_split(ends[:-1], dim=1)
    return [module.pointwise_conv2(piece[None])[0].T for piece in pieces]


def pool(frames):
    pairs = [
        torch.stack([frames[t], frames[t + 1]]).max(dim=0).values
        for t in range(0, len(frames) - 1, 2)
    ]
    return torch.stack(pairs)
