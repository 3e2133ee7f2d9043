"""What a user should know about a streaming encoder in a model."""

import logging
import math
from typing import Any

from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.encoder.geometry import algorithmic_latency, feature_rate


def report_streaming(model: Any) -> None:
    """Log the latency of a chunked encoder; warn of what needs complete utterances.

    Args:
        model: An ESPnet ASR model with its frontend, normalisation and encoder. Other
            encoders than ``cif_conformer`` with chunks are not reported.
    """
    encoder = model.encoder
    if not isinstance(encoder, CIFConformerEncoder):
        return
    if not any((*encoder.chunks.training, encoder.decoding_chunk_size)):
        return
    if type(model.normalize).__name__ == "UtteranceMVN":
        logging.warning(
            "encoder_conf: chunk_size is for streaming, but normalize: utterance_mvn "
            "needs the complete utterance; use global_mvn (feats_normalize: global_mvn)"
        )
    rate = feature_rate(model.frontend)
    latency = None if rate is None else algorithmic_latency(model, rate)
    if latency is not None and latency < math.inf:
        logging.info(
            "streaming: decoding_chunk_size %d frames, algorithmic latency %.3f s",
            encoder.decoding_chunk_size,
            latency,
        )
