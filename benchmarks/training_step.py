"""One training step: ours against ours without distillation and against ESPnet's.

The batch is 30,000 frames of 10 ms: 66 utterances of 4.5 s with 14.4 characters each,
as AISHELL-1 has them, so near in length as ESPnet's batches of sorted utterances are.
A step is forward, backward, clipping of the gradient and AdamW, in float32, of the
models of ``models.py`` with dropout and SpecAugment as shipped. Teacher vectors are
768-d: stored (random ones, in a store of 4,000 sentences) or made by a BERT of
bert-base's size.

    python3 benchmarks/training_step.py [--frames 30000] [--rounds 5] [--whole]

What differs between the models with the same encoder is a small part of a step, less
than the machine's noise. So the parts are timed by themselves, in turns, and ratios are
those of the sums of their medians, ``step``:

- ``encoder``: waveform to encoder frames, and backward; of a fifth of the utterances,
  times five, for no utterance looks at another but for its batch statistics. Models
  that have the same encoder share the figure.
- ``head``: encoder frames to loss, and backward to those frames, of all utterances.
- ``optimiser``: clipping and AdamW.

With ``--whole`` one real step of each model is timed, too; on 2 cores that is half a
minute for each.

``forward`` counts the floating-point operations of products in the forward pass; a
backward pass has twice as many, but for the teacher, which has none.
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
UTTERANCE = 4.55  # s, with what the STFT and the convolutions drop: 30,000 / 66 frames
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
    "whole",
    "step",
    "it / CIF",
    "CIF / it",
]
OTHER_ENCODER = "ESPnet conformer"
SAME_ENCODER = "same encoder, Transformer decoder"
SHARE = 5  # the encoder is timed with every fifth utterance
WAYS = {  # row: model of models.py
    "CIF": "cif",
    "CIF, HKD, stored": "cif_hkd",
    "CIF, HKD, BERT beside": "cif_hkd",
    SAME_ENCODER: "transformer",
    OTHER_ENCODER: "conformer",
}


class Given(torch.nn.Module):
    """Stands for an encoder: gives the same frames, whatever comes in."""

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
    """Random vectors for the sentences of the batch and for many others."""
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
        for parameter in model.parameters():  # the optimiser leaves out what has none
            parameter.grad = torch.zeros_like(parameter)
        self.data = data
        self.own = (model.frontend, model.specaug, model.normalize, model.encoder)

    def forward(self) -> torch.Tensor:
        """The loss."""
        # ESPnet's model writes into the transcripts.
        loss, _, weight = self.model(**{k: v.clone() for k, v in self.data.items()})
        # As ESPnet's trainer does.
        return (loss * weight.to(loss.dtype)).sum() / weight.sum()

    def whole(self) -> None:
        self.forward().backward()
        self.update()

    def frames(self, share: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every utterance, or of the first and each ``share``-th from there on."""
        speech, lengths = self.data["speech"], self.data["speech_lengths"]
        return self.model.encode(speech[::share], lengths[::share])

    def encoder(self) -> None:
        """Of a share of the batch."""
        frames, _ = self.frames(SHARE)
        frames.backward(torch.full_like(frames, 1e-3))

    @contextlib.contextmanager
    def without_encoder(self) -> Any:
        """Let the model's forward begin at encoder frames, ready for backward."""
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
    for name in ("CIF, HKD, stored", "CIF, HKD, BERT beside"):
        teaching[name] = {"teacher": bert, "teacher_revision": None}
    teaching["CIF, HKD, stored"]["teacher_store"] = str(folder / "store")
    return {
        name: Step(models.build(model, **teaching[name]), data)
        for name, model in WAYS.items()
    }


def operations(step: Step) -> float:
    """Of the forward pass, reckoned from a few utterances, for they are alike."""
    whole = step.data
    share = min(1.0, COUNTED / len(whole["text"]))
    step.data = {name: value[:COUNTED] for name, value in whole.items()}
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            step.forward()
    finally:
        step.data = whole
    return float(counter.get_total_flops()) / share


def time_heads(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    with contextlib.ExitStack() as stack:
        for step in steps.values():
            stack.enter_context(step.without_encoder())
        heads = {name: step.head for name, step in steps.items()}
        return measure.medians(measure.in_turns(heads, rounds))


def time_encoders(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Of all models, times as for the whole batch."""
    ways = {name: steps[name].encoder for name in ("CIF", OTHER_ENCODER)}
    timed = measure.medians(measure.in_turns(ways, rounds))
    size = len(steps["CIF"].data["text"])
    factor = size / len(range(0, size, SHARE))
    return {name: factor * timed.get(name, timed["CIF"]) for name in steps}


def rows(steps: dict[str, Step], rounds: int, with_whole: bool) -> list[list[object]]:
    """One of each model."""
    head = time_heads(steps, rounds)
    updates = {name: step.update for name, step in steps.items()}
    optimiser = measure.medians(measure.in_turns(updates, rounds))
    encoder = time_encoders(steps, rounds)
    whole: dict[str, float] = {}
    if with_whole:
        ways = {name: step.whole for name, step in steps.items()}
        whole = measure.medians(measure.in_turns(ways, 1, warm_up=0))
    total = {name: encoder[name] + head[name] + optimiser[name] for name in steps}
    return [
        [
            name,
            f"{models.parameters(step.model) / 1e6:.1f}",
            f"{operations(step) / 1e9:.0f}",
            encoder[name],
            head[name],
            optimiser[name],
            whole.get(name),
            f"{total[name]:.1f}",
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
    parser.add_argument("--whole", action="store_true", help="time whole steps, too")
    args = parser.parse_args()
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
        found = rows(steps, args.rounds, args.whole)
    print(measure.table(HEAD, found))
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
