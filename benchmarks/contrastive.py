"""ACD, forward and backward: one matrix of cosines against N x K gathered negatives.

``gather`` is the algorithm of the authors' code: ``torch.multinomial`` draws K ids for
each of N tokens, and their teacher vectors are gathered into (N, K, C), normalised and
multiplied with the token's own vector. ``gather, bmm`` is the fastest form of a gather:
vectors are normalised before they are copied, and one batched product follows. Ours
masks an (N, N) matrix of cosines in blocks of rows. ``products`` are the two matrix
products that cosines and gradients need in any case, the lower limit. Every run draws
700 new negatives; vectors are 768 wide, in float32.

    python3 benchmarks/contrastive.py [--sizes 250 1000 8000] [--json FILE]
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import (
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

from espnet_cif_hkd.losses.contrastive import token_contrastive_loss

WIDTH = 768
NEGATIVES = 700
TEMPERATURE = 0.02
SIZES = {250: 15, 1000: 7, 8000: 3}  # N: repeats
_GATHERED = 1000  # N up to which the gather is tried


def drawn(n_tokens: int) -> torch.Tensor:
    """(N, K) ids, uniform without replacement."""
    count = NEGATIVES if n_tokens > NEGATIVES else n_tokens * 4 // 5
    ones = torch.ones(n_tokens, n_tokens, device=device())
    return torch.multinomial(ones, count, replacement=False)


def classified(cosines: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy of (N, 1 + K) cosines; a token is not its own negative."""
    own = torch.arange(len(ids), device=ids.device)[:, None]
    keep = F.pad(ids != own, (1, 0), value=True)
    logits = cosines.masked_fill(~keep, -1e9) / TEMPERATURE
    return F.cross_entropy(logits, own[:, 0] * 0, reduction="sum")


def gather(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    ids = drawn(len(student))
    candidates = torch.cat([teacher[:, None], teacher[ids]], dim=1)  # (N, 1 + K, C)
    candidates = F.normalize(candidates, dim=-1, eps=1e-6)
    anchors = F.normalize(student, dim=-1, eps=1e-6)
    return classified((anchors[:, None] * candidates).sum(-1), ids)


def gather_bmm(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    ids = drawn(len(student))
    unit = F.normalize(teacher, dim=-1, eps=1e-6)
    candidates = unit[F.pad(ids, (1, 0))]
    candidates[:, 0] = unit
    anchors = F.normalize(student, dim=-1, eps=1e-6)
    return classified(torch.bmm(candidates, anchors[:, :, None])[:, :, 0], ids)


def ours(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return token_contrastive_loss(student, teacher, TEMPERATURE, NEGATIVES)[0].sum()


def products(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return (student @ teacher.T).sum()


WAYS = {"gather": gather, "bmm": gather_bmm, "ours": ours, "products": products}


def one_run(name: str, n_tokens: int) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, n_tokens, WIDTH, generator=generator).to(device())
    student.requires_grad_()

    def run() -> None:
        student.grad = None
        WAYS[name](student, teacher).backward()

    return run


def memory(name: str, n_tokens: int) -> float:
    """Peak MiB in addition to the two inputs, with the gradient."""
    if on_gpu():
        return peak_bytes(one_run(name, n_tokens)) / 2**20
    return int(alone(__file__, "--peak", name, str(n_tokens))) / 2**20


def main() -> None:
    """Print the table; for :func:`alone`, the peak of one alternative in bytes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=SIZES)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    figures = use_options(args)
    if args.peak:
        describe()
        print(peak_bytes(one_run(args.peak[0], int(args.peak[1]))))
        return
    print(describe() + "; milliseconds, MiB\n")
    rows = []
    for n_tokens in args.sizes:
        gathered = ["gather", "bmm"] if n_tokens <= _GATHERED else []
        names = [*gathered, "ours", "products"]
        seconds = medians(
            in_turns({name: one_run(name, n_tokens) for name in names}, SIZES[n_tokens])
        )
        mib = {name: memory(name, n_tokens) for name in [*gathered, "ours"]}
        for name in names:
            figures.add(f"N = {n_tokens}: {name}", 1000 * seconds[name], "ms")
        for name, size in mib.items():
            figures.add(f"N = {n_tokens}: {name}, peak memory", size, "MiB")
        cells: list[object] = [n_tokens]
        cells += [1000 * seconds[n] if n in seconds else None for n in WAYS]
        for peer in ("gather", "bmm"):
            known = peer in seconds
            cells.append(seconds[peer] / seconds["ours"] if known else None)
        cells += [mib.get(n) for n in ("gather", "bmm", "ours")]
        cells.append(mib["gather"] / mib["ours"] if gathered else None)
        rows.append(cells)
    head = [
        *("N", "gather ms", "gather, bmm ms", "ours ms", "products ms"),
        *("gather / ours", "bmm / ours"),
        *("gather MiB", "bmm MiB", "ours MiB", "gather / ours"),
    ]
    print(table(head, rows))


if __name__ == "__main__":
    main()
