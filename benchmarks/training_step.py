"""One training step: ours with and without distillation, and ESPnet's models.

The batch has 30,000 frames of 10 ms: 66 utterances of 4.5 s with 14.4 characters each,
as in AISHELL-1. ESPnet's batches of sorted utterances have similar lengths. A step is
forward, backward, gradient clipping and AdamW in float32, with the models of
``models.py``, dropout and SpecAugment as shipped. Teacher vectors have 768 dimensions.
They are stored (random vectors, a store of 4,000 sentences) or computed by a BERT of
bert-base's size.

    python3 benchmarks/training_step.py [--frames 30000] [--rounds 5] [--complete]
        [--device cpu] [--json FILE]

Models with the same encoder differ in a small part of a step, less than the noise of
the machine. Therefore the parts are timed separately, in turns, and ratios compare the
sums of their medians, ``step``:

- ``encoder``: waveform to encoder frames, and backward. On a CPU for a fifth of the
  utterances, times five (utterances interact only through batch statistics). Models
  with the same encoder share the figure.
- ``head``: encoder frames to loss, and backward to those frames, for all utterances.
- ``optimiser``: clipping and AdamW.

``--complete`` also times real steps of each model: ``--rounds`` of them on a GPU; one
on a CPU, where it takes half a minute on 2 cores.

``forward`` counts the floating-point operations of products in the forward pass. A
backward pass has twice as many, but the teacher has none.
"""

import argparse
import contextlib
import io
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import models
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from espnet_cif_hkd.teachers.base import sequence_key
from espnet_cif_hkd.teachers.store.header import StoreHeader
from espnet_cif_hkd.teachers.store.shard import Shard
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig

RATE = 16_000
FRAME = 160
UTTERANCE = (
    4.55  # s, with the frames that STFT and convolutions drop: 30,000 / 66 frames
)
TOKENS = 14.4
DIM = 768
STORED = 4_000
COUNTED = 4  # utterances
HEAD = [
    "model",
    "10^6 parameters",
    "forward",
    "encoder",
    "head",
    "optimiser",
    "complete",
    "step",
    "it / CIF",
    "CIF / it",
]
OTHER_ENCODER = "ESPnet conformer"
SAME_ENCODER = "same encoder, Transformer decoder"
SHARE = 5  # on a CPU, the encoder is timed with every fifth utterance
WAYS = {  # row: model of models.py
    "CIF": "cif",
    "CIF, HKD, stored": "cif_hkd",
    "CIF, HKD, BERT online": "cif_hkd",
    SAME_ENCODER: "transformer",
    OTHER_ENCODER: "conformer",
}


class Given(torch.nn.Module):
    """An encoder that returns the same frames for any input."""

    def __init__(self, frames: torch.Tensor, lengths: torch.Tensor) -> None:
        super().__init__()
        self.frames, self.lengths = frames, lengths

    def forward(self, xs: torch.Tensor, ilens: torch.Tensor) -> tuple[Any, Any, None]:
        return self.frames, self.lengths, None


def batch(frames: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Noise and random characters in the shape of AISHELL-1's batches."""
    generator = torch.Generator().manual_seed(seed)
    size = max(1, round(frames * FRAME / (RATE * UTTERANCE)))
    samples = round(RATE * UTTERANCE)
    lengths = torch.randint(samples - 1600, samples, (size,), generator=generator)
    lengths[0] = samples
    numbers = TOKENS + 3 * torch.randn(size, generator=generator)
    text_lengths = numbers.round().long().clamp(4, 25)
    speech = 0.1 * torch.randn(size, samples, generator=generator)
    shape = (size, int(text_lengths.max()))
    text = torch.randint(2, len(models.TOKENS) - 1, shape, generator=generator)
    for row in range(size):
        speech[row, lengths[row] :] = 0.0
        text[row, text_lengths[row] :] = -1
    made = {
        "speech": speech,
        "speech_lengths": lengths,
        "text": text,
        "text_lengths": text_lengths,
    }
    return {name: value.to(measure.device()) for name, value in made.items()}


def write_store(folder: Path, teacher: str, data: dict[str, torch.Tensor]) -> None:
    """A store with random vectors for the batch and many other sentences."""
    generator = np.random.default_rng(0)
    sentences = [
        ids[:length]
        for ids, length in zip(
            data["text"].tolist(), data["text_lengths"].tolist(), strict=True
        )
    ]
    others = generator.integers(2, len(models.TOKENS) - 1, (STORED, round(TOKENS)))
    sentences += others.tolist()
    items = {
        sequence_key(ids): {
            "vectors": generator.standard_normal((len(ids) + 1, DIM)).astype(np.float16)
        }
        for ids in sentences
    }
    folder.mkdir()
    made_for = OnlineTeacher(TeacherConfig(teacher, DIM), models.TOKENS)
    options = {**made_for.describe(), "layer": 12, "num_layers": 12}
    StoreHeader(made_for.payload, options, made_for.fingerprint()).write(folder)
    Shard.write(folder / "shard-00000.safetensors", items)


class Step:
    """A model, its optimiser, and the parts of a training step."""

    def __init__(self, model: Any, data: dict[str, torch.Tensor]) -> None:
        self.model = model.to(measure.device()).train()
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)
        for (
            parameter
        ) in model.parameters():  # the optimiser skips parameters without a gradient
            parameter.grad = torch.zeros_like(parameter)
        self.data = data
        self.own = (model.frontend, model.specaug, model.normalize, model.encoder)

    def forward(self) -> torch.Tensor:
        """The loss."""
        # ESPnet's model writes into the transcripts.
        loss, _, weight = self.model(**{k: v.clone() for k, v in self.data.items()})
        # As ESPnet's trainer does.
        return (loss * weight.to(loss.dtype)).sum() / weight.sum()

    def complete(self) -> None:
        self.forward().backward()
        self.update()

    def frames(self, share: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames of every ``share``-th utterance, from the first."""
        speech, lengths = self.data["speech"], self.data["speech_lengths"]
        return self.model.encode(speech[::share], lengths[::share])

    def encoder(self) -> None:
        """Encoder time of a share of the batch."""
        frames, _ = self.frames(share())
        frames.backward(torch.full_like(frames, 1e-3))

    @contextlib.contextmanager
    def without_encoder(self) -> Any:
        """Let the model's forward start from encoder frames that need gradients."""
        with torch.no_grad():
            frames, lengths = self.frames()
        names = ("frontend", "specaug", "normalize", "encoder")
        given = Given(frames.requires_grad_(), lengths)
        for name, value in zip(names, (None, None, None, given), strict=True):
            setattr(self.model, name, value)
        try:
            yield
        finally:
            for name, value in zip(names, self.own, strict=True):
                setattr(self.model, name, value)

    def head(self) -> None:
        self.forward().backward()

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=False)


def build(data: dict[str, torch.Tensor], folder: Path) -> dict[str, Step]:
    bert = models.write_bert(folder / "bert")
    write_store(folder / "store", bert, data)
    teaching: dict[str, dict[str, Any]] = {name: {} for name in WAYS}
    for name in ("CIF, HKD, stored", "CIF, HKD, BERT online"):
        teaching[name] = {"teacher": bert, "teacher_revision": None}
    teaching["CIF, HKD, stored"]["teacher_store"] = str(folder / "store")
    return {
        name: Step(models.build(model, **teaching[name]), data)
        for name, model in WAYS.items()
    }


def operations(step: Step) -> float:
    """Operations of the forward pass, from a few of the similar utterances.

    They are counted on the CPU: the counter's dispatch refuses CTC on a GPU, whose
    lengths are on the host.
    """
    batch = step.data
    share = min(1.0, COUNTED / len(batch["text"]))
    step.data = {name: value[:COUNTED].cpu() for name, value in batch.items()}
    step.model.cpu()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            step.forward()
    finally:
        step.data = batch
        step.model.to(measure.device())
    return float(counter.get_total_flops()) / share


def time_heads(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    with contextlib.ExitStack() as stack:
        for step in steps.values():
            stack.enter_context(step.without_encoder())
        heads = {name: step.head for name, step in steps.items()}
        return measure.medians(measure.in_turns(heads, rounds))


def share() -> int:
    return 1 if measure.on_gpu() else SHARE


def time_encoders(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Seconds of the encoders of all models, for the complete batch."""
    ways = {name: steps[name].encoder for name in ("CIF", OTHER_ENCODER)}
    timed = measure.medians(measure.in_turns(ways, rounds))
    size = len(steps["CIF"].data["text"])
    factor = size / len(range(0, size, share()))
    return {name: factor * timed.get(name, timed["CIF"]) for name in steps}


def rows(
    steps: dict[str, Step], rounds: int, with_complete: bool
) -> list[list[object]]:
    """One row for each model."""
    head = time_heads(steps, rounds)
    updates = {name: step.update for name, step in steps.items()}
    optimiser = measure.medians(measure.in_turns(updates, rounds))
    encoder = time_encoders(steps, rounds)
    complete: dict[str, float] = {}
    if with_complete:
        ways = {name: step.complete for name, step in steps.items()}
        repeats = rounds if measure.on_gpu() else 1
        warm_up = 1 if measure.on_gpu() else 0
        complete = measure.medians(measure.in_turns(ways, repeats, warm_up))
    total = {name: encoder[name] + head[name] + optimiser[name] for name in steps}
    return [
        [
            name,
            f"{models.parameters(step.model) / 1e6:.1f}",
            f"{operations(step) / 1e9:.0f}",
            encoder[name],
            head[name],
            optimiser[name],
            complete.get(name),
            total[name],
            f"{total[name] / total['CIF']:.3f}",
            f"{total['CIF'] / total[name]:.3f}",
        ]
        for name, step in steps.items()
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=30_000, help="of 10 ms")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each part")
    parser.add_argument(
        "--complete", action="store_true", help="also time complete steps"
    )
    measure.add_options(parser)
    args = parser.parse_args()
    figures = measure.use_options(args)
    logging.disable(logging.WARNING)
    started = time.perf_counter()
    print(measure.describe("espnet", "transformers"))
    data = batch(args.frames)
    n_frames = float(data["speech_lengths"].sum()) / FRAME
    n_tokens = int(data["text_lengths"].sum())
    print(
        f"{len(data['text'])} utterances, {n_frames:,.0f} frames, {n_tokens} tokens; "
        "seconds; operations in 10^9\n"
    )
    quiet = contextlib.redirect_stderr(io.StringIO())
    with tempfile.TemporaryDirectory() as folder, quiet:
        steps = build(data, Path(folder))
        found = rows(steps, args.rounds, args.complete)
    print(measure.table(HEAD, found))
    for name, *cells in found:
        for part, cell in zip(HEAD[3:8], cells[2:7], strict=True):
            if cell is not None:
                figures.add(f"{name}: {part}", float(str(cell)), "s")
        figures.add(f"{name}: step against CIF", float(str(cells[7])), "ratio")
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
