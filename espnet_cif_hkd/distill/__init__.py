"""Distillation: criteria that compare taps of the recogniser with a teacher."""

from espnet_cif_hkd.distill.choices import criterion_choices
from espnet_cif_hkd.distill.criterion import (
    AbsDistillCriterion,
    CheckContext,
    DistillOutput,
    Sentences,
)
from espnet_cif_hkd.distill.frames import FramesCriterion
from espnet_cif_hkd.distill.hkd import HKDCriterion
from espnet_cif_hkd.distill.soft_labels import SoftLabelsCriterion
from espnet_cif_hkd.distill.taps import Student, Taps
from espnet_cif_hkd.distill.text_only import TextOnlyCriterion
from espnet_cif_hkd.distill.transducer_path import TransducerPathCriterion
from espnet_cif_hkd.losses.contrastive import contrastive_loss
from espnet_cif_hkd.losses.regression import regression_loss
from espnet_cif_hkd.losses.soft_labels import soft_label_loss

__all__ = [
    "AbsDistillCriterion",
    "CheckContext",
    "DistillOutput",
    "FramesCriterion",
    "HKDCriterion",
    "Sentences",
    "SoftLabelsCriterion",
    "Student",
    "Taps",
    "TextOnlyCriterion",
    "TransducerPathCriterion",
    "contrastive_loss",
    "criterion_choices",
    "regression_loss",
    "soft_label_loss",
]
