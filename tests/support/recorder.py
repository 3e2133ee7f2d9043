"""A criterion that keeps the taps it gets; in YAML ``recorder`` once imported."""

import torch

from espnet_cif_hkd.distill import (
    AbsDistillCriterion,
    DistillOutput,
    criterion_choices,
)


@criterion_choices.register("recorder")
class Recorder(AbsDistillCriterion):
    """Adds nothing to the loss.

    Args:
        student: of the model, or the first tap.
        wants: names of taps.
    """

    def __init__(self, student, wants=()):
        super().__init__()
        self.student = student
        self.wants = frozenset([student] if isinstance(student, str) else wants)
        self.got = None

    def forward(self, taps):
        self.got = taps
        return DistillOutput()


@criterion_choices.register("mean_frame")
class MeanFrame(AbsDistillCriterion):
    """The mean square of an encoder layer's frames, projected; a loss per frame."""

    def __init__(self, student, layer=1, weight=1.0):
        super().__init__()
        self.layer, self.weight = layer, weight
        self.wants = frozenset({f"layer:{layer}"})
        self.project = torch.nn.Linear(student.size(f"layer:{layer}"), 2)

    def forward(self, taps):
        frames, lengths = taps.layers[self.layer], taps.layer_lens[self.layer]
        loss = self.project(frames[taps.valid(lengths, frames)]).square().sum()
        return DistillOutput(
            losses={"loss_frame": loss},
            weights={"loss_frame": self.weight},
            frames={"loss_frame": lengths.sum()},
            stats={"frames": float(lengths.sum())},
        )
