"""What CTC's spikes cost, as shares of the losses that a training has anyway.

    python3 benchmarks/ctc_guide.py

Rows: frames, tokens and vocabulary of a batch. ``forward + backward`` of
integrate-and-fire without and with ``segment_ends``; the forced alignment against the
forward and backward pass of CTC's loss; firing at the spikes of CTC's best path against
firing by alpha. One thread, seconds of the process.
"""

import argparse
import sys
from pathlib import Path

import torch
from measure import (
    add_options,
    describe,
    device,
    in_turns,
    medians,
    own_clock,
    table,
    use_options,
)

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from espnet_cif_hkd.cif import integrate_and_fire  # noqa: E402
from espnet_cif_hkd.decoder.ctc_firing import CTCFiring  # noqa: E402
from espnet_cif_hkd.losses.ctc_guide import ctc_spikes  # noqa: E402

# Utterances, frames, size of a frame, tokens, vocabulary. The first is a batch of
# FOTAQ, the second one of LibriSpeech, the third one of AISHELL-1.
_SHAPES = ((12, 80, 192, 15, 302), (16, 400, 512, 60, 5000), (32, 150, 256, 15, 4233))
_REPEATS = 11


class _KnownCTC:
    """Stands for ESPnet's CTC, whose linear layer is not measured."""

    def __init__(self, logp: torch.Tensor) -> None:
        self.logp = logp

    def log_softmax(self, hs_pad: torch.Tensor) -> torch.Tensor:
        return self.logp


def measured(shape: tuple[int, ...]) -> dict[str, float]:
    """Seconds of each way."""
    n_batch, n_frames, size, n_tokens, vocab = shape
    generator = torch.Generator().manual_seed(0)

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator).to(device())

    hs = random(n_batch, n_frames, size).requires_grad_()
    alpha = random(n_batch, n_frames).sigmoid().requires_grad_()
    hlens = torch.full((n_batch,), n_frames, device=device())
    ys = torch.randint(1, vocab, (n_batch, n_tokens), generator=generator)
    ys_lens = torch.full((n_batch,), n_tokens)
    logits = 3 * random(n_batch, n_frames, vocab)
    logits[..., 0] += 12.0
    places = torch.arange(n_tokens) * (n_frames // (n_tokens + 1))
    logits[:, places + 1] = 3 * random(n_batch, n_tokens, vocab)
    logp = logits.log_softmax(-1)
    ys, ys_lens = ys.to(device()), ys_lens.to(device())
    spikes = ctc_spikes(logp, hlens, ys, ys_lens)
    firing = CTCFiring(_KnownCTC(logp), 0)
    grad = random(n_batch, n_tokens + 1, size)

    def fire(ends: torch.Tensor | None) -> None:
        out = integrate_and_fire(
            hs, alpha, hlens, ys_lens + 1, None, n_tokens + 1, segment_ends=ends
        )
        out.embeddings.backward(grad)
        hs.grad = alpha.grad = None

    def ctc_loss() -> None:
        leaf = logits.detach().requires_grad_()
        found = torch.nn.functional.ctc_loss(
            leaf.log_softmax(-1).transpose(0, 1), ys, hlens, ys_lens
        )
        found.backward()

    @torch.no_grad()
    def recognise(at_spikes: bool) -> None:
        weights = firing.weights(alpha, hs, hlens) if at_spikes else alpha
        integrate_and_fire(hs, weights, hlens)

    ways = {
        "fire": lambda: fire(None),
        "fire with ends": lambda: fire(spikes),
        "CTC loss": ctc_loss,
        "alignment": lambda: ctc_spikes(logp, hlens, ys, ys_lens),
        "fire by alpha": lambda: recognise(False),
        "fire at spikes": lambda: recognise(True),
    }
    return medians(in_turns(ways, _REPEATS, warm_up=2, clock=own_clock()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    figures = use_options(parser.parse_args())
    line = describe(threads=1)
    rows: list[list[object]] = []
    for shape in _SHAPES:
        found = measured(shape)
        for name, seconds in found.items():
            figures.add(f"{shape}: {name}", 1000 * seconds, "ms")
        row: list[object] = [str(shape)]
        for one, other in (
            ("fire", "fire with ends"),
            ("CTC loss", "alignment"),
            ("fire by alpha", "fire at spikes"),
        ):
            row += [1000 * found[one], 1000 * found[other], found[other] / found[one]]
        rows.append(row)
    head = ["B, T, D, U, V", "fire, ms", "with ends, ms", "ratio", "CTC loss, ms"]
    head += ["alignment, ms", "ratio", "by alpha, ms", "at spikes, ms", "ratio"]
    print(line + "\n\n" + table(head, rows))


if __name__ == "__main__":
    main()
