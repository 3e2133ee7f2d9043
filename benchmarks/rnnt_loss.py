"""The transducer loss against ESPnet's in Python, and torchaudio's operator.

``sum`` is the sum of the logsumexp of all nodes, differentiated by autograd. On a
CPU the figures are time of the processor, with one thread. The fastest run counts:
other processes only make runs slower.
"""

import argparse
import time
from collections.abc import Callable

import torch
from measure import (
    Figures,
    add_options,
    alone,
    describe,
    device,
    in_turns,
    on_gpu,
    own_clock,
    peak_bytes,
    table,
    use_options,
)

from espnet_cif_hkd.losses import rnnt_loss

# B, T, U, V
Shape = tuple[int, int, int, int]
SHAPES: tuple[Shape, ...] = (
    (4, 60, 20, 100),
    (8, 80, 30, 500),
    (16, 60, 40, 30),  # FOTAQ: characters
    (8, 160, 50, 500),
)
_SLOW = 2  # the implementation in Python is timed on the first shapes only
Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def ours(logits: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    return rnnt_loss(logits, *others)


def theirs(logits: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    return rnnt_loss(logits, *others, backend="torchaudio")


def by_autograd(
    logits: torch.Tensor,
    targets: torch.Tensor,
    frames: torch.Tensor,
    tokens: torch.Tensor,
) -> torch.Tensor:
    """The recursion over frames that autograd differentiates."""
    logp = logits.log_softmax(-1)
    blank = logp[..., 0]
    n_batch, n_frames, n_nodes = blank.shape
    index = targets[:, None, :, None].expand(n_batch, n_frames, n_nodes - 1, 1)
    label = logp[:, :, :-1].gather(3, index).squeeze(3)
    label = torch.nn.functional.pad(label.cumsum(2), (1, 0))
    rows = [label[:, 0]]
    for t in range(1, n_frames):
        before = rows[-1] + blank[:, t - 1] - label[:, t]
        rows.append(label[:, t] + torch.logcumsumexp(before, 1))
    last = torch.arange(n_batch, device=logits.device), frames - 1, tokens
    return -(torch.stack(rows, 1)[last] + blank[last])


def read_and_write(logits: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    return torch.logsumexp(logits, -1).sum((1, 2))


def peers() -> dict[str, Way]:
    """Other implementations that this machine has."""
    found: dict[str, Way] = {}
    try:
        theirs(*inputs((1, 1, 1, 2)))
        found["torchaudio"] = theirs
    except RuntimeError as error:
        print(" ".join(str(error).split())[:200])
    return found


def numba_seconds(shape: Shape) -> float:
    """Time of ESPnet's loss in Python, one run."""
    from espnet2.asr.transducer.rnnt_multi_blank import rnnt_multi_blank

    loss = rnnt_multi_blank.RNNTLossNumba(blank=0, reduction="none")
    run = runner(lambda logits, *rest: loss(logits, *(y.int() for y in rest)), shape)
    [seconds] = in_turns({"numba": run}, 1, 0, time.process_time)["numba"]
    return seconds


def inputs(shape: Shape) -> list[torch.Tensor]:
    """Logits with a gradient, targets, lengths; two thirds of the lengths differ."""
    n_batch, n_frames, n_tokens, n_vocab = shape
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n_batch, n_frames, n_tokens + 1, n_vocab, generator=generator)
    targets = torch.randint(1, n_vocab, (n_batch, n_tokens), generator=generator)
    frames = torch.full((n_batch,), n_frames)
    tokens = torch.full((n_batch,), n_tokens)
    frames[1::2] -= 7
    tokens[1::3] -= 5
    found = [one.to(device()) for one in (logits, targets, frames, tokens)]
    found[0].requires_grad_()
    return found


def runner(way: Way, shape: Shape) -> Callable[[], None]:
    given = inputs(shape)

    def run() -> None:
        given[0].grad = None
        way(*given).sum().backward()

    return run


def ways(others: dict[str, Way]) -> dict[str, Way]:
    """All alternatives but numba."""
    return {"sum": read_and_write, "ours": ours, "autograd": by_autograd, **others}


def speed(
    number: int, others: dict[str, Way], quick: bool, figures: Figures
) -> list[object]:
    """The table row of one shape: milliseconds and ratios."""
    shape, repeats = SHAPES[number], 3 if quick else 7
    runners = {name: runner(way, shape) for name, way in ways(others).items()}
    rarely = {}
    if not on_gpu() and "torchaudio" in runners:  # takes seconds
        rarely["torchaudio"] = runners.pop("torchaudio")
    clock = own_clock()
    times = in_turns(runners, repeats, 2, clock) | in_turns(rarely, 2, 0, clock)
    found = {name: min(runs) for name, runs in times.items()}
    if number < _SLOW and not quick:
        # In this process, it would make all later runs slower.
        found["numba"] = float(alone(__file__, "--numba", str(number)))
    for name, seconds in found.items():
        figures.add(f"{shape}: {name}, forward + backward", 1000 * seconds, "ms")
    columns = ("sum", "ours", "autograd", "torchaudio", "numba")
    return [
        str(shape),
        *(1000 * found[name] if name in found else None for name in columns),
        *(
            found[name] / found["ours"] if name in found else None
            for name in columns[2:]
        ),
    ]


def memory(number: int, name: str) -> float:
    """:func:`peak` of a shape, on the CPU in a separate process."""
    if on_gpu():
        return peak(number, name)
    return float(alone(__file__, "--peak", str(number), name))


def peak(number: int, name: str) -> float:
    """Peak above the inputs, in multiples of the logits; the gradient is one."""
    shape = SHAPES[number]
    n_batch, n_frames, n_tokens, n_vocab = shape
    size = n_batch * n_frames * (n_tokens + 1) * n_vocab * 4
    way = ways(peers())[name]
    given = inputs(shape)

    def run() -> None:
        given[0].grad = None
        way(*given).sum().backward()
        given[0].grad = None

    return peak_bytes(run) / size


def errors(shape: Shape, others: dict[str, Way], figures: Figures) -> list[object]:
    """Largest errors of float32 against our float64: loss, gradient."""

    def both(way: Way, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        logits, *rest = inputs(shape)
        logits = logits.detach().to(dtype).requires_grad_()
        losses = way(logits, *rest)
        (gradient,) = torch.autograd.grad(losses.sum(), logits)
        return losses.detach().flatten().double(), gradient.double()

    exact = both(ours, torch.float64)
    row: list[object] = [str(shape)]
    for name in ("ours", "autograd", "torchaudio"):
        way = {"ours": ours, "autograd": by_autograd, **others}.get(name)
        if way is None:
            row.append(None)
            continue
        found = both(way, torch.float32)
        off = [(a - b).abs().max().item() for a, b in zip(found, exact, strict=True)]
        for what, error in zip(("loss", "gradient"), off, strict=True):
            figures.add(f"{shape}: {name}, largest error of the {what}", error, "1")
        row.append(f"{off[0]:.1e}, {off[1]:.1e}")
    return row


def main() -> None:
    """Print the three tables, or, for :func:`alone`, one figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument(
        "--quick", action="store_true", help="a few runs, without RNNTLossNumba"
    )
    parser.add_argument(
        "--shapes", type=int, default=len(SHAPES), metavar="N", help="the first N only"
    )
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--numba", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    figures = use_options(args)
    if args.numba is not None:
        describe(threads=1)
        print(numba_seconds(SHAPES[args.numba]))
        return
    line = describe("torchaudio", "numba", threads=1)
    if args.peak:
        print(peak(int(args.peak[0]), args.peak[1]))
        return
    print(line)
    others = peers()
    print("\nforward + backward, float32, milliseconds")
    names = ["sum", "ours", "autograd", "torchaudio", "numba"]
    head = ["B, T, U, V", *names, *(f"{name} / ours" for name in names[2:])]
    rows = [speed(n, others, args.quick, figures) for n in range(args.shapes)]
    print(table(head, rows), flush=True)
    print("\npeak memory above the inputs, in multiples of the logits")
    rows = []
    names.remove("numba")
    for number, shape in enumerate(SHAPES[: args.shapes]):
        offered = ways(others)
        found = {n: memory(number, n) if n in offered else None for n in names}
        rows.append([str(shape), *found.values()])
        for name, size in found.items():
            if size is not None:
                figures.add(f"{shape}: {name}, peak memory", size, "sizes of logits")
    print(table(["B, T, U, V", *names], rows), flush=True)
    print("\nlargest error of float32 against float64: loss, gradient")
    rows = [errors(shape, others, figures) for shape in SHAPES[: args.shapes]]
    print(table(["B, T, U, V", "ours", "autograd", "torchaudio"], rows))


if __name__ == "__main__":
    main()
