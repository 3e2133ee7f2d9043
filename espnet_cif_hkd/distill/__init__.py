"""Distillation from pretrained language models; needed in training only."""

from espnet2.train.class_choices import ClassChoices

from espnet_cif_hkd.distill.criterion import AbsDistillCriterion, DistillOutput
from espnet_cif_hkd.distill.hkd import HKDCriterion
from espnet_cif_hkd.losses.contrastive import contrastive_loss
from espnet_cif_hkd.losses.regression import regression_loss

__all__ = [
    "AbsDistillCriterion",
    "DistillOutput",
    "HKDCriterion",
    "contrastive_loss",
    "criterion_choices",
    "regression_loss",
]


class _CriterionChoices(ClassChoices):
    def get_class(self, name: str | None) -> type | None:
        """As ESPnet's, which refuses the strings "none", "null" and "nil"."""
        if name is not None:
            name = name.lower()
        return None if name in ("none", "null", "nil") else super().get_class(name)


criterion_choices = _CriterionChoices(
    "criterion",
    {"hkd": HKDCriterion},
    type_check=AbsDistillCriterion,
    default=None,
    optional=True,
)
