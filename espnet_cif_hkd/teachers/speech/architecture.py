"""The architecture of a speech model as text, for checkpoints that have its weights."""

import json
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.speech.config import ModelFacts, SpeechConfig
from espnet_cif_hkd.teachers.speech.encoder import SpeechEncoder
from espnet_cif_hkd.teachers.speech.opening import (
    encoder_around,
    extractor_class,
    random_model,
)


def architecture_of(facts: ModelFacts, encoder: SpeechEncoder) -> str:
    """Return kind and options of a model and its feature extractor as JSON."""
    options = {
        "kind": facts.kind,
        "config": facts.config.to_diff_dict(),
        "extractor": encoder.extractor.to_dict(),
    }
    return json.dumps(options, sort_keys=True)


def rebuilt(
    config: SpeechConfig, architecture: str
) -> tuple[ModelFacts, SpeechEncoder]:
    """Build a model whose weights are to be loaded.

    Args:
        config: Options of the teacher.
        architecture: Result of :func:`architecture_of`.

    Raises:
        UserError: The text is damaged, or has a model that is unknown here.
    """
    from transformers import AutoConfig

    try:
        options: dict[str, Any] = json.loads(architecture)
        kind = str(options["kind"])
        values = {k: v for k, v in options["config"].items() if k != "model_type"}
        model_config = AutoConfig.for_model(kind, **values)
        extractor = extractor_class(kind)(**options["extractor"])
    # Readers of damaged options raise errors of many types.
    except Exception as e:
        raise UserError(
            f"the checkpoint has a speech model that cannot be built here ({e}); use "
            "the checkpoint and the versions of packages of its training"
        ) from e
    facts = ModelFacts(
        *(model_config, kind, model_config.hidden_size),
        model_config.num_hidden_layers,
    )
    model = random_model(facts)
    return facts, encoder_around(config, facts, model, extractor)
