"""The lattice of a transducer: checks, arcs and nodes by diagonal.

Shapes, names and nodes are those of :mod:`espnet_cif_hkd.losses.rnnt`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits that are processed together: few enough for a cache, enough for a GPU.
BLOCK_LOGITS = {"cpu": 1 << 18, "cuda": 1 << 24}


def checked_inputs(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return targets, frames and tokens, int64 on the device, and the blank's id.

    Raises:
        ValueError: Shapes do not fit, or ``blank`` is no id.

    Example:
        >>> one, two = torch.tensor([1]), torch.tensor([2])
        >>> *_, blank = checked_inputs(torch.zeros(1, 2, 2, 4), one[None], two, one, -1)
        >>> blank
        3
    """
    if logits.dim() != 4 or not logits.is_floating_point() or 0 in logits.shape:
        raise ValueError(
            "logits must be floating, (B, T, U + 1, V) and not empty, but are "
            f"{tuple(logits.shape)} {logits.dtype}"
        )
    n_batch, _, n_nodes, n_vocab = logits.shape
    given = {
        "targets": (targets, (n_batch, n_nodes - 1)),
        "logit_lengths": (logit_lengths, (n_batch,)),
        "target_lengths": (target_lengths, (n_batch,)),
    }
    for name, (tensor, shape) in given.items():
        if tensor.shape != shape or tensor.is_floating_point():
            raise ValueError(
                f"{name} must be integers {shape} for logits {tuple(logits.shape)}, "
                f"but are {tuple(tensor.shape)} {tensor.dtype}"
            )
    if not -n_vocab <= blank < n_vocab:
        raise ValueError(f"blank {blank} is not an id of {n_vocab} tokens")
    device = logits.device
    return (
        targets.to(device, torch.int64),
        logit_lengths.to(device, torch.int64),
        target_lengths.to(device, torch.int64),
        blank % n_vocab,
    )


def wrong_values(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
) -> Tensor:
    """Utterances with a length or a token out of range, (B,) bool.

    Raises:
        ValueError: There is one, and the host can read it without waiting.

    Example:
        >>> one, two = torch.tensor([1]), torch.tensor([2])
        >>> wrong_values(torch.zeros(1, 2, 2, 4), one[None], two, one, 0)
        tensor([False])
    """
    _, n_frames, n_nodes, n_vocab = logits.shape
    used = torch.arange(n_nodes - 1, device=targets.device) < target_lengths[:, None]
    no_token = (targets < 0) | (targets >= n_vocab) | (targets == blank)
    found = {
        f"logit_lengths must be from 1 to {n_frames}": (logit_lengths < 1)
        | (logit_lengths > n_frames),
        f"target_lengths must be from 0 to {n_nodes - 1}": (target_lengths < 0)
        | (target_lengths >= n_nodes),
        f"targets must be ids from 0 to {n_vocab - 1} without the blank {blank}": (
            used & no_token
        ).any(1),
    }
    if logits.device.type == "cpu":
        for message, wrong in found.items():
            if wrong.any():
                raise ValueError(
                    f"{message}: see utterance {int(wrong.int().argmax())}"
                )
    return torch.stack(list(found.values())).any(0)


def blocks(rows: Tensor) -> list[tuple[int, int]]:
    """First and last row of each block of ``rows`` (N, V).

    Example:
        >>> blocks(torch.zeros(5, 1 << 17))
        [(0, 2), (2, 4), (4, 5)]
    """
    step = max(1, BLOCK_LOGITS.get(rows.device.type, 1 << 22) // rows.size(1))
    return [(n, min(n + step, len(rows))) for n in range(0, len(rows), step)]


def next_tokens(logits: Tensor, targets: Tensor) -> Tensor:
    """The token that each row of logits can emit, (B · T · (U + 1),) int64.

    Padding is cut to the range of ids; it has no arcs.

    Example:
        >>> next_tokens(torch.zeros(1, 2, 3, 9), torch.tensor([[7, 8]]))
        tensor([7, 8, 0, 7, 8, 0])
    """
    n_batch, n_frames, n_nodes, n_vocab = logits.shape
    tokens = F.pad(targets.clamp(0, n_vocab - 1), (0, 1))
    return tokens[:, None].expand(n_batch, n_frames, n_nodes).reshape(-1)


def arc_scores(logits: Tensor, targets: Tensor, blank: int) -> Tensor:
    """Log-probabilities of blank and of the next token, (2, B, T, U + 1) float64.

    Args:
        logits: (B, T, U + 1, V), any floating dtype. The softmax is float32, or float64
            for float64 logits. T may be some of the frames of an utterance.
        targets: (B, U) int64; padding may be any integer.
        blank: Id of the blank, from 0.

    Example:
        >>> arc_scores(torch.zeros(1, 2, 3, 9), torch.tensor([[7, 8]]), 0).shape
        torch.Size([2, 1, 2, 3])
    """
    rows, tokens = logits.reshape(-1, logits.size(-1)), next_tokens(logits, targets)
    scores = torch.empty(2, len(rows), dtype=torch.float64, device=logits.device)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    with torch.autocast(logits.device.type, enabled=False):
        for start, stop in blocks(rows):
            logp = torch.log_softmax(rows[start:stop], -1, dtype=dtype)
            scores[0, start:stop] = logp[:, blank]
            scores[1, start:stop] = logp.gather(1, tokens[start:stop, None])[:, 0]
    return scores.view(2, *logits.shape[:3])


def without_padding(arcs: Tensor, frames: Tensor, tokens: Tensor) -> Tensor:
    """Return the arcs, (2, B, T, U + 1), with -inf where an utterance has none.

    Args:
        arcs: As of :func:`arc_scores`; padding may be NaN.
        frames, tokens: (B,) int64.

    Example:
        >>> one, two = torch.tensor([1]), torch.tensor([2])
        >>> without_padding(torch.zeros(2, 1, 2, 2), two, one)[1, 0]
        tensor([[0., -inf],
                [0., -inf]])
    """
    t = torch.arange(arcs.size(2), device=arcs.device)[:, None]
    u = torch.arange(arcs.size(3), device=arcs.device)
    inside = (t < frames[:, None, None]) & (u <= tokens[:, None, None])
    inside = torch.stack([inside, inside & (u < tokens[:, None, None])])
    return arcs.masked_fill(~inside, -torch.inf)


def pick(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``values[b, rows, columns]``, or -inf where these are out of range.

    Args:
        values: (B, R, C).
        rows, columns: Indices that broadcast to (B, N, M).

    Example:
        >>> values = torch.arange(6.0).view(1, 2, 3)
        >>> pick(values, torch.tensor([[1, 2]]), torch.tensor([[0, 0]]))
        tensor([[[3., -inf]]])
    """
    n_batch, n_rows, n_columns = values.shape
    inside = (rows >= 0) & (rows < n_rows) & (columns >= 0) & (columns < n_columns)
    places = rows.clamp(0, n_rows - 1) * n_columns + columns.clamp(0, n_columns - 1)
    places = places.expand(n_batch, *places.shape[-2:])
    found = values.flatten(1).gather(1, places.flatten(1)).view(places.shape)
    return found.masked_fill(~inside, -torch.inf)
