"""Losses of distillation. This package needs torch and numpy only."""

from espnet_cif_hkd.losses.contrastive import contrastive_loss
from espnet_cif_hkd.losses.regression import regression_loss

__all__ = ["contrastive_loss", "regression_loss"]
