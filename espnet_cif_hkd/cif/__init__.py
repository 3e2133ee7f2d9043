"""Continuous integrate-and-fire (CIF): the operation and the weight predictor.

This package needs torch only. Source: Dong and Xu, "CIF: Continuous integrate-and-fire
for end-to-end speech recognition", arXiv 1905.11235.
"""

from espnet_cif_hkd.cif.op import CIFOutput, integrate_and_fire
from espnet_cif_hkd.cif.predictor import CIFPredictor

__all__ = ["CIFOutput", "CIFPredictor", "integrate_and_fire"]
