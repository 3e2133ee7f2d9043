"""The time of each part of a real training on FOTAQ, from recording to checkpoint.

Trains with ESPnet's task on the recipe's data, with the configuration that stage 11
wrote, and measures the time at the borders of modules, on the CPU.

    cd egs2/fotaq/asr_hkd    # after stage 11 of run.sh has started, with or without HKD
    python3 …/benchmarks/epoch_profile.py [--config exp/asr_hkd/config.yaml]
        [--steps 60 | --steps 0] [--workers 1] [--threads 2] [--no-teacher]

``--steps`` steps of the epoch are trained (0: all), then dev is validated once and a
checkpoint is written, as after each epoch. All outputs are removed.
"""

import argparse
import contextlib
import io
import logging
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import measure
import torch
import yaml
from espnet2.tasks.asr import ASRTask
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from espnet_cif_hkd.plugin import register

ROWS = [
    "data: waiting, statistics, log",
    "front end: STFT, SpecAugment, norm",
    "encoder, forward",
    "CIF: predictor",
    "CIF: firing; decoder; losses; statistics",
    "CTC",
    "distillation, forward",
    "backward to the encoder's output",
    "backward of encoder, clipping",
    "optimiser",
]
PLACES = {  # attribute of the model: row of its forward
    "frontend": ROWS[1],
    "specaug": ROWS[1],
    "normalize": ROWS[1],
    "encoder": ROWS[2],
    "decoder.predictor": ROWS[3],
    "ctc": ROWS[5],
    "criterion": ROWS[6],
}
REST = ROWS[4]
SKIPPED = 3  # steps that warm up


class Clock:
    """The time between marks, summed by row over the training steps."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.step = 0
        self.last = self.forward_began = time.perf_counter()
        self.places: dict[torch.nn.Module, str] = {}
        self.model: torch.nn.Module | None = None
        self.validation: list[float] = []

    def mark(self, row: str) -> None:
        """Add the time since the last mark to this row."""
        now = time.perf_counter()
        self.rows[self.step][row] += now - self.last
        self.last = now

    def before_forward(self, module: torch.nn.Module, inputs: Any) -> None:
        if type(module).__name__ == "CIFASRModel":
            self._find(module)
            self.forward_began = time.perf_counter()
            if module.training:
                self.mark(ROWS[0])
        elif module.training and module in self.places:
            self.mark(REST)

    def after_forward(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if module is self.model and not module.training:
            self.validation.append(time.perf_counter() - self.forward_began)
        elif module.training and module is self.model:
            self.mark(REST)
        elif module.training and module in self.places:
            self.mark(self.places[module])
            if self.places[module] == ROWS[2]:
                output[0].register_hook(lambda gradient: self.mark(ROWS[7]))

    def before_update(self, *args: Any) -> None:
        self.mark(ROWS[8])

    def after_update(self, *args: Any) -> None:
        self.mark(ROWS[9])
        self.step += 1

    def _find(self, model: torch.nn.Module) -> None:
        if self.model is None:
            self.model = model
            for name, row in PLACES.items():
                with contextlib.suppress(AttributeError):
                    self.places[model.get_submodule(name)] = row

    def means(self) -> dict[str, float]:
        """Seconds of a step."""
        counted = [rows for n, rows in self.rows.items() if SKIPPED <= n < self.step]
        return {
            row: sum(one[row] for one in counted) / max(len(counted), 1) for row in ROWS
        }


def train(options: dict[str, Any], clock: Clock) -> float:
    """Train with ESPnet's task; return the total seconds."""
    hooks = [
        register_module_forward_pre_hook(clock.before_forward),
        register_module_forward_hook(clock.after_forward),
        register_optimizer_step_pre_hook(clock.before_update),
        register_optimizer_step_post_hook(clock.after_update),
    ]
    began = time.perf_counter()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            ASRTask.main(args=argparse.Namespace(**options))
    finally:
        for hook in hooks:
            hook.remove()
    return time.perf_counter() - began


def options(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Options of a training of one epoch that writes only to ``folder``."""
    conf: dict[str, Any] = yaml.safe_load(args.config.read_text("utf-8"))
    conf.update(
        output_dir=folder,
        ngpu=0,
        num_workers=args.workers,
        max_epoch=1,
        num_iters_per_epoch=args.steps or None,
        resume=False,
    )
    if args.no_teacher:
        conf["model_conf"].update(criterion=None, criterion_conf=None)
    return conf


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("exp/asr_hkd/config.yaml"))
    parser.add_argument("--steps", type=int, default=60, help="of the epoch; 0: all")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that load data"
    )
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--no-teacher", action="store_true", help="CIF alone")
    args = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    print(measure.describe("espnet", threads=args.threads))
    register()
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        total = train(options(args, folder), clock)
    means = clock.means()
    total = sum(means.values())
    print(
        f"{clock.step} steps of {args.config}"
        f"{', without teacher' if args.no_teacher else ''}, {args.workers} workers\n"
    )
    rows: list[list[object]] = [
        [row, f"{1000 * seconds:.1f}", f"{100 * seconds / total:.1f}"]
        for row, seconds in means.items()
    ]
    rows.append(["step", f"{1000 * total:.0f}", "100"])
    print(measure.table(["part of a training step", "ms", "%"], rows))
    steps = total * clock.step
    validation = sum(clock.validation)
    print(
        f"\ntraining {steps:.0f} s; validation, {len(clock.validation)} batches, "
        f"{validation:.1f} s; start, checkpoint and the rest "
        f"{total - steps - validation:.1f} s; all {total:.0f} s"
    )


if __name__ == "__main__":
    logging.captureWarnings(True)
    main()
