"""Continuous integrate-and-fire: the operation, its oracle and the weight predictor."""

from espnet_cif_hkd.cif.op import CIFOutput, integrate_and_fire
from espnet_cif_hkd.cif.predictor import CIFPredictor

__all__ = ["CIFOutput", "CIFPredictor", "integrate_and_fire"]
