"""Integrate-and-fire as an ONNX graph: ours against FunASR's, in onnxruntime.

    pip install --no-deps 'funasr>=1.4,<1.5'
    python3 benchmarks/export_cif.py

``dense``: :func:`espnet_cif_hkd.cif.dense.fire_densely`; ``FunASR``: ``cif_v1_export``,
which its exporter uses; ``FunASR, loop``: ``cif_export``, a loop over frames, which it
used before. All read the same alpha, without padding and without a tail. ``error`` is
the largest difference of a fired vector from the loop over frames in float64.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measure import add_options, describe, in_turns, medians, table, use_options
from torch import Tensor

from espnet_cif_hkd.cif.dense import fire_densely
from espnet_cif_hkd.cif.naive import integrate_and_fire_naive

SHAPES = [
    (1, 125, 256, 16),
    (16, 125, 256, 16),
    (1, 800, 512, 200),
    (1, 3000, 256, 500),
    (1, 20000, 512, 3000),
]
LOOP = "FunASR, loop"
LONGEST = 200  # frames of the loop: with 800 it takes minutes


class Ours(torch.nn.Module):
    """The graph of our exporter."""

    def forward(self, hs: Tensor, alpha: Tensor) -> Tensor:
        """Return fired vectors."""
        lengths = torch.full_like(alpha[:, 0], 1.0).long() * hs.size(1)
        return fire_densely(hs, alpha, lengths, None).embeddings


class Peer(torch.nn.Module):
    """A function of FunASR: hidden, alphas, threshold."""

    def __init__(self, function: Callable[..., tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, hs: Tensor, alpha: Tensor) -> Tensor:
        """Return fired vectors."""
        return self.function(hs, alpha, 1.0)[0]


def graphs() -> dict[str, torch.nn.Module]:
    """The alternatives that are installed."""
    found: dict[str, torch.nn.Module] = {"dense": Ours()}
    try:
        from funasr.models.paraformer import cif_predictor
    except ImportError as error:
        print(f"FunASR is absent ({error}); its rows are missing", flush=True)
        return found
    found["FunASR"] = Peer(cif_predictor.cif_v1_export)
    found[LOOP] = Peer(cif_predictor.cif_export)
    return found


def session(module: torch.nn.Module, file: Path) -> Callable[..., np.ndarray]:
    """Export a module; return it as a function of arrays."""
    import onnxruntime

    example = torch.randn(2, 9, 4), torch.full((2, 9), 0.4)
    # FunASR's functions are scripts.
    scripted = torch.jit.trace(module, example, check_trace=False)
    torch.onnx.export(
        scripted,
        example,
        str(file),
        input_names=["hs", "alpha"],
        output_names=["fired"],
        dynamic_axes={
            "hs": {0: "batch", 1: "time", 2: "size"},
            "alpha": {0: "batch", 1: "time"},
            "fired": {0: "batch", 1: "tokens", 2: "size"},
        },
        opset_version=17,
        dynamo=False,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    run = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    return lambda hs, alpha: run.run(None, {"hs": hs, "alpha": alpha})[0]  # type: ignore[no-any-return]


def inputs(shape: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Frames, and weights whose sum is a little more than the number of tokens."""
    n_batch, n_frames, n_dim, n_tokens = shape
    generator = torch.Generator().manual_seed(0)
    hs = torch.randn(n_batch, n_frames, n_dim, generator=generator)
    alpha = torch.rand(n_batch, n_frames, generator=generator).double()
    alpha *= (n_tokens + 0.2) / alpha.sum(1, keepdim=True)
    return hs, alpha.float()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="only so many")
    parser.add_argument("--repeats", type=int, default=5)
    add_options(parser)
    args = parser.parse_args()
    figures = use_options(args)
    print(describe("onnxruntime", "funasr", threads=1) + "\n", flush=True)
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: session(module, Path(folder) / f"{number}.onnx")
            for number, (name, module) in enumerate(graphs().items())
        }
        for shape in SHAPES[: args.shapes]:
            hs, alpha = inputs(shape)
            lengths = torch.full((len(hs),), hs.size(1))
            exact = torch.stack(
                integrate_and_fire_naive(hs.double(), alpha.double(), lengths)[0]
            )[:, : shape[3]].numpy()
            arrays = hs.numpy(), alpha.numpy()
            ways = {
                name: partial(run, *arrays)
                for name, run in runs.items()
                if name != LOOP or shape[1] <= LONGEST
            }
            times = in_turns(ways, args.repeats, clock=time.process_time)
            seconds = medians(times)
            for name, each in seconds.items():
                fired = np.zeros_like(exact)
                found = ways[name]()[:, : shape[3]]
                fired[:, : found.shape[1]] = found
                lost = ~fired.any(axis=2)
                error = np.abs(fired - exact)[~lost].max()
                ratio = f"{each / seconds['dense']:.2f}"
                rows.append(
                    [
                        *(str(shape), name, f"{1e3 * each:.2f}", ratio),
                        *(f"{error:.1e}", int(lost.sum())),
                    ]
                )
                label = f"export_cif.{'_'.join(map(str, shape))}.{name}"
                figures.add(label, 1e3 * each, "ms")
    head = ["B, T, D, L", "graph", "ms", "/ dense", "error", "lost vectors"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
