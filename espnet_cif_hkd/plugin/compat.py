"""Differences between ESPnet 202511 and ESPnet 202611.

ESPnet 202611 moved ``espnet.nets`` to ``espnet2.legacy.nets``. All other modules of
this package import those classes from here and do not depend on the release.
"""

import importlib
import importlib.util
from typing import Any

import espnet2

_HAS_LEGACY = importlib.util.find_spec("espnet2.legacy") is not None
_LEGACY_PREFIX = "espnet2.legacy.nets" if _HAS_LEGACY else "espnet.nets"
# pip has no record of a checkout on PYTHONPATH, and ESPnet may have no number there.
ESPNET_RELEASE: str = espnet2.__version__
if not ESPNET_RELEASE.isdigit():
    ESPNET_RELEASE = "202611" if _HAS_LEGACY else "202511"


def _from_nets(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"{_LEGACY_PREFIX}.{module}"), name)


BatchScorerInterface = _from_nets("scorer_interface", "BatchScorerInterface")
BatchBeamSearch = _from_nets("batch_beam_search", "BatchBeamSearch")
BeamSearch = _from_nets("beam_search", "BeamSearch")
Hypothesis = _from_nets("beam_search", "Hypothesis")
CTCPrefixScorer = _from_nets("scorers.ctc", "CTCPrefixScorer")
LengthBonus = _from_nets("scorers.length_bonus", "LengthBonus")
ErrorCalculator = _from_nets("e2e_asr_common", "ErrorCalculator")
get_activation = _from_nets("pytorch_backend.nets_utils", "get_activation")
th_accuracy = _from_nets("pytorch_backend.nets_utils", "th_accuracy")
add_sos_eos = _from_nets("pytorch_backend.transformer.add_sos_eos", "add_sos_eos")
LabelSmoothingLoss = _from_nets(
    "pytorch_backend.transformer.label_smoothing_loss", "LabelSmoothingLoss"
)
LayerNorm = _from_nets("pytorch_backend.transformer.layer_norm", "LayerNorm")
MultiHeadedAttention = _from_nets(
    "pytorch_backend.transformer.attention", "MultiHeadedAttention"
)
RelPositionMultiHeadedAttention = _from_nets(
    "pytorch_backend.transformer.attention", "RelPositionMultiHeadedAttention"
)
PositionalEncoding = _from_nets(
    "pytorch_backend.transformer.embedding", "PositionalEncoding"
)
RelPositionalEncoding = _from_nets(
    "pytorch_backend.transformer.embedding", "RelPositionalEncoding"
)
PositionwiseFeedForward = _from_nets(
    "pytorch_backend.transformer.positionwise_feed_forward", "PositionwiseFeedForward"
)
EncoderLayer = _from_nets("pytorch_backend.conformer.encoder_layer", "EncoderLayer")
_SUBSAMPLING = "pytorch_backend.transformer.subsampling"
Conv2dSubsampling = _from_nets(_SUBSAMPLING, "Conv2dSubsampling")
Conv2dSubsampling1 = _from_nets(_SUBSAMPLING, "Conv2dSubsampling1")
Conv2dSubsampling2 = _from_nets(_SUBSAMPLING, "Conv2dSubsampling2")
Conv2dSubsampling6 = _from_nets(_SUBSAMPLING, "Conv2dSubsampling6")
Conv2dSubsampling8 = _from_nets(_SUBSAMPLING, "Conv2dSubsampling8")
TooShortUttError = _from_nets(_SUBSAMPLING, "TooShortUttError")
