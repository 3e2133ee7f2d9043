"""Losses of distillation and of the decoder. This package needs torch only."""

from espnet_cif_hkd.losses.contrastive import contrastive_loss
from espnet_cif_hkd.losses.frames import frame_loss
from espnet_cif_hkd.losses.regression import regression_loss
from espnet_cif_hkd.losses.rnnt import rnnt_loss
from espnet_cif_hkd.losses.rnnt_path import best_path, path_distillation_loss
from espnet_cif_hkd.losses.soft_labels import soft_label_loss

__all__ = [
    "best_path",
    "contrastive_loss",
    "frame_loss",
    "path_distillation_loss",
    "regression_loss",
    "rnnt_loss",
    "soft_label_loss",
]
