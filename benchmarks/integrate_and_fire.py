"""Forward and backward of integrate-and-fire: time, memory, exactness.

    python3 benchmarks/integrate_and_fire.py [--shapes 5] [--device cpu] [--json FILE]

A row is a shape, a column an implementation; implementations take turns in one run. The
lower limit is the weighted sum ``(h * a[..., None]).sum(1)``, which reads and writes
what any integration must. Peers are torch-cif and FunASR (``pip install --no-deps
torch-cif==0.2.0 'funasr>=1.4,<1.5'``; left out with a message if they are not
installed), the loop over frames of the authors' code, and ``dense``, the product with
the complete (L, T) matrix of overlaps. All but the weighted sum scale alpha to the
target length first.
"""

import argparse
from collections.abc import Callable

import torch
from measure import (
    Figures,
    add_options,
    alone,
    describe,
    device,
    in_turns,
    medians,
    on_gpu,
    peak_bytes,
    table,
    use_options,
)

from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.cif.naive import integrate_and_fire_naive

SHAPES = [  # B, T, D, L
    (32, 125, 256, 16),
    (32, 250, 256, 30),
    (16, 800, 512, 200),
    (4, 3000, 256, 500),
    (1, 20000, 512, 3000),
]
Shape = tuple[int, int, int, int]
Way = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
_LOOP_FRAMES = 10_000  # largest B * T for which the loop over frames is timed
_DENSE_WEIGHTS = (
    10_000_000  # largest B * L * T for which the matrix of overlaps is timed
)
_REPEATS = 15


def weighted_sum(hs: torch.Tensor, alpha: torch.Tensor, target: int) -> torch.Tensor:
    return (hs * alpha[..., None]).sum(1)


def ours(hs: torch.Tensor, alpha: torch.Tensor, target: int) -> torch.Tensor:
    lengths = torch.full((len(hs),), hs.size(1), device=hs.device)
    targets = torch.full((len(hs),), target, device=hs.device)
    fired = integrate_and_fire(hs, alpha, lengths, targets, max_target_length=target)
    return fired.embeddings


def torch_cif(hs: torch.Tensor, alpha: torch.Tensor, target: int) -> torch.Tensor:
    from torch_cif import cif_function

    targets = torch.full((len(hs),), target, device=hs.device)
    return cif_function(hs, alpha, target_lengths=targets)["cif_out"][0]  # type: ignore[no-any-return]


def funasr(hs: torch.Tensor, alpha: torch.Tensor, target: int) -> torch.Tensor:
    from funasr.models.paraformer.cif_predictor import cif_v1

    scaled = alpha * (target / alpha.sum(1, keepdim=True))
    return cif_v1(hs, scaled, 1.0)[0]  # type: ignore[no-any-return]


def dense(hs: torch.Tensor, alpha: torch.Tensor, target: int) -> torch.Tensor:
    scaled = alpha.double()
    cum = (scaled * target / scaled.sum(1, keepdim=True)).cumsum(1)
    before = torch.nn.functional.pad(cum[:, :-1], (1, 0))
    token = torch.arange(target, device=hs.device, dtype=cum.dtype)[None, :, None]
    upper = torch.minimum(cum[:, None], token + 1)  # (B, L, T)
    overlaps = (upper - torch.maximum(before[:, None], token)).clamp(min=0)
    return overlaps.to(hs.dtype) @ hs


def loop(hs: torch.Tensor, alpha: torch.Tensor, target: int) -> torch.Tensor:
    lengths = torch.full((len(hs),), hs.size(1))
    targets = torch.full((len(hs),), target)
    rows, _ = integrate_and_fire_naive(hs, alpha, lengths, targets)
    return torch.stack(rows)


def inputs(shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    n_batch, n_frames, n_dim, _ = shape
    generator = torch.Generator().manual_seed(0)
    hs = torch.randn(n_batch, n_frames, n_dim, generator=generator)
    alpha = torch.rand(n_batch, n_frames, generator=generator)
    return (
        hs.to(device()).requires_grad_(),
        alpha.to(device()).requires_grad_(),
    )


def runner(way: Way, shape: Shape) -> Callable[[], None]:
    """One forward and backward, with different gradients for all elements."""
    hs, alpha = inputs(shape)
    grads: dict[torch.Size, torch.Tensor] = {}

    def run() -> None:
        out = way(hs, alpha, shape[3])
        if out.shape not in grads:
            generator = torch.Generator().manual_seed(1)
            grads[out.shape] = torch.randn(out.shape, generator=generator).to(device())
        out.backward(grads[out.shape])
        # So the peak of the next run includes them and earlier memory does not.
        hs.grad = alpha.grad = None

    return run


def peers() -> dict[str, Way]:
    """The implementations of other packages."""
    found: dict[str, Way] = {}
    for name, way in (("torch-cif", torch_cif), ("FunASR", funasr)):
        try:
            way(torch.ones(1, 4, 2), torch.full((1, 4), 0.5), 2)
        except ImportError as e:
            print(f"{name} is absent ({e}); its column is empty", flush=True)
        else:
            found[name] = way
    return found


def speed(shape: Shape, others: dict[str, Way], figures: Figures) -> list[object]:
    """One row: milliseconds and ratios."""
    n_batch, n_frames, _, target = shape
    ways: dict[str, Way] = {"sum": weighted_sum, "ours": ours, **others}
    if n_batch * n_frames * target <= _DENSE_WEIGHTS:
        ways["dense"] = dense
    # Two warm-up rounds: the first runs of a shape allocate memory.
    runners = {name: runner(way, shape) for name, way in ways.items()}
    found = medians(in_turns(runners, _REPEATS, warm_up=2))
    if n_batch * n_frames <= _LOOP_FRAMES:
        found |= medians(in_turns({"loop": runner(loop, shape)}, 2))
    for name, seconds in found.items():
        figures.add(f"{shape}: {name}, forward + backward", 1000 * seconds, "ms")
    fastest = min((found[name] for name in others), default=None)
    columns = ("sum", "ours", "torch-cif", "FunASR", "dense", "loop")
    return [
        str(shape),
        *(1000 * found[name] if name in found else None for name in columns),
        found["ours"] / found["sum"],
        None if fastest is None else fastest / found["ours"],
        found["loop"] / found["ours"] if "loop" in found else None,
    ]


def memory(number: int, name: str) -> float:
    """:func:`peak` of a shape, on the CPU in a separate process."""
    if on_gpu():
        return peak(SHAPES[number], name)
    return float(alone(__file__, "--peak", str(number), name))


def peak(shape: Shape, name: str) -> float:
    """Peak above inputs, outputs and their gradients, in multiples of ``hs``."""
    way = {"sum": weighted_sum, "ours": ours, "torch-cif": torch_cif, "FunASR": funasr}
    n_batch, n_frames, n_dim, target = shape
    most = peak_bytes(runner(way[name], shape))
    n_tokens = 1 if name == "sum" else target
    # The output and the gradients of both inputs; that of the output exists.
    own = n_batch * (n_tokens * n_dim + n_frames * n_dim + n_frames) * 4
    return (most - own) / (n_batch * n_frames * n_dim * 4)


def exactness(shape: Shape, others: dict[str, Way], figures: Figures) -> list[object]:
    """Largest error of the fired vectors, and the number of missing ones."""
    hs, alpha = inputs(shape)
    hs, alpha = hs.detach(), alpha.detach()
    target = shape[3]
    exact = ours(hs.double(), alpha.double(), target)
    row: list[object] = [str(shape)]
    ways: dict[str, Way] = {"ours": ours, **others}
    for name in ("ours", "torch-cif", "FunASR"):
        if name not in ways:
            row.append(None)
            continue
        fired = ways[name](hs, alpha, target)
        n_same = min(target, fired.size(1))
        there = (fired[:, :n_same] != 0).any(-1)  # a token that was lost is zero
        error = (fired[:, :n_same] - exact[:, :n_same])[there].abs().max().item()
        lost = len(hs) * target - int(there.sum())
        row.append(f"{error:.1e}, {lost} lost")
        figures.add(f"{shape}: {name}, largest error of float32", error, "1")
        figures.add(f"{shape}: {name}, tokens lost", lost, "tokens")
    return row


def main() -> None:
    """Print the three tables, or, for :func:`alone`, one figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument(
        "--shapes", type=int, default=len(SHAPES), help="how many of the shapes"
    )
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    figures = use_options(args)
    line = describe("torch-cif", "funasr")
    if args.peak:
        print(peak(SHAPES[int(args.peak[0])], args.peak[1]))
        return
    shapes = SHAPES[: args.shapes]
    print(line)
    others = peers()
    head = "B, T, D, L|sum|ours|torch-cif|FunASR|dense|loop|ours / sum|peer / ours"
    print("\nforward + backward, float32, milliseconds")
    rows = [speed(shape, others, figures) for shape in shapes]
    print(table([*head.split("|"), "loop / ours"], rows), flush=True)
    print("\npeak memory above inputs, outputs and gradients, in multiples of hs")
    names = ["sum", "ours", *others]
    rows = []
    for number, shape in enumerate(shapes):
        found = {name: memory(number, name) for name in names}
        rows.append([str(shape), *found.values()])
        for name, sizes in found.items():
            figures.add(f"{shape}: {name}, peak memory", sizes, "sizes of hs")
    print(table(["B, T, D, L", *names], rows), flush=True)
    print("\nlargest error of float32 against float64, vectors that are missing")
    rows = [exactness(shape, others, figures) for shape in shapes]
    print(table(["B, T, D, L", "ours", "torch-cif", "FunASR"], rows))


if __name__ == "__main__":
    main()
