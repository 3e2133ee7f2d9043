"""Forward and backward of integrate-and-fire: which way to compute it, and how fast.

Every row is a shape; times are medians, and the ratios compare columns of one run:
the weighted sum ``(h * a[..., None]).sum(1)`` reads and writes what any integration
must, and is the limit. ``dense`` multiplies the (L, T) matrix of overlaps with the
frames; ``prefix`` takes differences of prefix sums of ``alpha * h`` in float64.

    python3 benchmarks/integrate_and_fire.py
"""

import platform
import statistics
import time
from collections.abc import Callable

import torch

from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.cif.naive import integrate_and_fire_naive

SHAPES = [  # B, T, D, L
    (32, 125, 256, 16),
    (32, 250, 256, 30),
    (16, 800, 512, 200),
    (4, 3000, 256, 500),
    (1, 20000, 512, 3000),
]
_LOOP_FRAMES = 10_000  # frames of a batch up to which the loop over frames is timed
_DENSE_WEIGHTS = 10_000_000  # likewise B * L * T for the matrix of overlaps


def overlaps(cum: torch.Tensor, n_tokens: int) -> torch.Tensor:
    """Weight of every frame on every token, ``(B, L, T)``."""
    before = torch.nn.functional.pad(cum[:, :-1], (1, 0))
    token = torch.arange(n_tokens, device=cum.device, dtype=cum.dtype)[None, :, None]
    upper = torch.minimum(cum[:, None], token + 1)
    return (upper - torch.maximum(before[:, None], token)).clamp(min=0)


def dense(hs: torch.Tensor, alpha: torch.Tensor, target: int) -> torch.Tensor:
    scaled = alpha.double()
    scaled = scaled * target / scaled.sum(1, keepdim=True)
    return overlaps(scaled.cumsum(1), target).to(hs.dtype) @ hs


def prefix(hs: torch.Tensor, alpha: torch.Tensor, target: int) -> torch.Tensor:
    scaled = alpha.double()
    scaled = scaled * target / scaled.sum(1, keepdim=True)
    cum = scaled.cumsum(1)  # (B, T)
    area = (scaled[..., None] * hs).cumsum(1)  # (B, T, D) float64
    ends = torch.arange(1, target + 1, device=hs.device, dtype=cum.dtype)
    ends = ends.expand(len(hs), -1).contiguous()
    frame = torch.searchsorted(cum.detach(), ends).clamp(max=hs.size(1) - 1)  # (B, L)
    rest = (ends - cum.gather(1, frame))[..., None]  # <= 0
    wide = frame[..., None].expand(-1, -1, hs.size(2))
    at_end = area.gather(1, wide) + rest * hs.gather(1, wide)
    return at_end.diff(dim=1, prepend=torch.zeros_like(at_end[:, :1])).to(hs.dtype)


def ours(hs: torch.Tensor, alpha: torch.Tensor, target: int) -> torch.Tensor:
    lengths = torch.full((len(hs),), hs.size(1), device=hs.device)
    targets = torch.full((len(hs),), target, device=hs.device)
    fired = integrate_and_fire(hs, alpha, lengths, targets, max_target_length=target)
    return fired.embeddings


def loop(hs: torch.Tensor, alpha: torch.Tensor, target: int) -> torch.Tensor:
    lengths = torch.full((len(hs),), hs.size(1))
    targets = torch.full((len(hs),), target)
    rows, _ = integrate_and_fire_naive(hs, alpha, lengths, targets)
    return torch.stack(rows)


def weighted_sum(hs: torch.Tensor, alpha: torch.Tensor, target: int) -> torch.Tensor:
    return (hs * alpha[..., None]).sum(1)


def seconds(
    function: Callable[..., torch.Tensor], shape: tuple[int, ...], repeats: int
) -> float:
    """Median of forward and backward, after one run that does not count."""
    n_batch, n_frames, n_dim, target = shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    hs = torch.randn(n_batch, n_frames, n_dim, generator=generator).to(device)
    alpha = torch.rand(n_batch, n_frames, generator=generator).to(device)
    hs.requires_grad_()
    alpha.requires_grad_()
    times = []
    for _ in range(repeats + 1):
        hs.grad = alpha.grad = None
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        function(hs, alpha, target).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Print the table."""
    torch.set_num_threads(2)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"{where}, {platform.machine()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads; forward + backward, float32, milliseconds"
    )
    print("| B, T, D, L | weighted sum | ours | dense | prefix | loop | ours / sum |")
    print("|---|---|---|---|---|---|---|")
    for shape in SHAPES:
        limit = seconds(weighted_sum, shape, 15)
        mine = seconds(ours, shape, 15)
        n_batch, n_frames, _, target = shape
        cells: list[float | None] = [limit, mine, None, seconds(prefix, shape, 5), None]
        if n_batch * n_frames * target <= _DENSE_WEIGHTS:
            cells[2] = seconds(dense, shape, 5)
        if n_batch * n_frames <= _LOOP_FRAMES:
            cells[4] = seconds(loop, shape, 1)
        shown = ["–" if c is None else f"{1000 * c:.1f}" for c in cells]
        print(f"| {shape} | {' | '.join(shown)} | {mine / limit:.1f} |", flush=True)


if __name__ == "__main__":
    main()
