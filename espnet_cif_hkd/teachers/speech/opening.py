"""Opens the model and the feature extractor of a speech teacher, without a network."""

import logging
from pathlib import Path
from typing import Any

import torch

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.source import WEIGHTS, local_folder, weight_files
from espnet_cif_hkd.teachers.speech.config import (
    ModelFacts,
    SpeechConfig,
    cannot_open,
    layer_indices,
    model_place,
)
from espnet_cif_hkd.teachers.speech.encoder import KINDS, SpeechEncoder

# Weights that only a training reads.
_UNUSED = ("masked_spec_embed",)
_EXTRACTORS = {
    "whisper": "WhisperFeatureExtractor",
    "wav2vec2-bert": "SeamlessM4TFeatureExtractor",
    "wav2vec2": "Wav2Vec2FeatureExtractor",
}
_EXTRACTOR_FILES = ("preprocessor_config.json", "processor_config.json")


def open_encoder(config: SpeechConfig, facts: ModelFacts) -> SpeechEncoder:
    """Open the frozen encoder of a teacher, on the CPU.

    Raises:
        UserError: A file is missing, or holds another model.
    """
    place = model_place(config)
    folder = Path(place)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        kept = "weights in another format" if weight_files(folder) else "no weights"
        raise UserError(
            f"teacher {config.name}: the folder holds {kept} instead of {WEIGHTS[0]}; "
            "get a copy with safetensors, or read it with AutoModel.from_pretrained "
            "and write it with save_pretrained"
        )
    try:
        model, report = _model_class(facts.kind).from_pretrained(
            place,
            config=_plain(facts.config),
            revision=config.revision,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    # Readers of damaged files raise errors of many types.
    except Exception as e:
        raise cannot_open(config, "weights", e) from e
    missing = sorted(k for k in report["missing_keys"] if not k.endswith(_UNUSED))
    if missing:
        raise UserError(
            f"teacher {config.name}: its file of weights lacks {len(missing)} of them, "
            f"e.g. {missing[0]}, so it is incomplete or belongs to another model than "
            "config.json; get a complete copy"
        )
    return _encoder(config, facts, model.float())


def random_encoder(config: SpeechConfig, facts: ModelFacts, seed: int) -> SpeechEncoder:
    """Return the encoder of a teacher with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = random_model(facts)
    return _encoder(config, facts, model)


def random_model(facts: ModelFacts) -> torch.nn.Module:
    """Return a model of transformers with new weights."""
    build = _model_class(facts.kind)
    build = getattr(build, "from_config", None) or build._from_config
    model: torch.nn.Module = build(_plain(facts.config))
    return model.float()


def _encoder(config: SpeechConfig, facts: ModelFacts, model: Any) -> SpeechEncoder:
    return encoder_around(config, facts, model, open_extractor(config, facts))


def encoder_around(
    config: SpeechConfig, facts: ModelFacts, model: Any, extractor: Any
) -> SpeechEncoder:
    """Return the frozen encoder of a model of transformers."""
    if facts.kind == "whisper":
        model = model.encoder
    layers = layer_indices(config, facts.num_layers)
    options = {"pad": config.pad} if facts.kind == "whisper" else {}
    encoder = KINDS[facts.kind](model, extractor, layers, **options)
    encoder.requires_grad_(False)
    return encoder.eval().to(getattr(torch, config.dtype))


def _plain(config: Any) -> Any:
    """Switch off everything that only a training or another task needs."""
    config.apply_spec_augment = False
    config.layerdrop = config.encoder_layerdrop = 0.0
    config.add_adapter = False
    return config


def _model_class(kind: str) -> Any:
    """Return the class of an encoder; that of Whisper loads no decoder."""
    if kind != "whisper":
        from transformers import AutoModel

        return AutoModel
    from transformers.models.whisper import modeling_whisper as whisper

    class EncoderOnly(whisper.WhisperPreTrainedModel):  # type: ignore[misc]
        _keys_to_ignore_on_load_unexpected = [r"decoder\.", "proj_out"]  # noqa: RUF012

        def __init__(self, config: Any):
            super().__init__(config)
            self.encoder = whisper.WhisperEncoder(config)
            self.post_init()

    return EncoderOnly


def extractor_class(kind: str) -> Any:
    """Return the class of the feature extractor of a kind of model."""
    import transformers

    return getattr(transformers, _EXTRACTORS.get(kind, _EXTRACTORS["wav2vec2"]))


def open_extractor(config: SpeechConfig, facts: ModelFacts) -> Any:
    """Open the feature extractor of a teacher, or make the usual one of its kind.

    Raises:
        UserError: Its file cannot be read or is for another kind of model.
    """
    import transformers

    kind = extractor_class(facts.kind)
    folder = local_folder(config.name, config.revision)
    if folder is not None and not any((folder / f).is_file() for f in _EXTRACTOR_FILES):
        options: dict[str, Any] = {}
        if facts.kind == "whisper":
            options["feature_size"] = facts.config.num_mel_bins
        elif facts.kind != "wav2vec2-bert":
            # Models with layer normalisation were trained on normalised samples.
            options["do_normalize"] = facts.config.feat_extract_norm == "layer"
        logging.warning(
            "teacher %s has no %s; the usual options of a %s model are used",
            config.name,
            _EXTRACTOR_FILES[0],
            facts.kind,
        )
        return kind(**options)
    try:
        found = transformers.AutoFeatureExtractor.from_pretrained(
            model_place(config), revision=config.revision, trust_remote_code=False
        )
    # Readers of damaged files raise errors of many types.
    except Exception as e:
        raise cannot_open(config, _EXTRACTOR_FILES[0], e) from e
    if not isinstance(found, kind):
        raise UserError(
            f"teacher {config.name}: its {_EXTRACTOR_FILES[0]} is for "
            f"{type(found).__name__}, but a {facts.kind} model needs {kind.__name__}; "
            "get a complete copy"
        )
    return found


def frame_times(config: SpeechConfig, facts: ModelFacts) -> FrameTimes:
    """Return the centres of the teacher's frames; opens no weights."""
    kind = KINDS[facts.kind]
    return kind.frame_times(facts.config, open_extractor(config, facts))


def content_files(config: SpeechConfig) -> list[Path] | None:
    """Return the files that determine the vectors; None if weights are missing."""
    folder = local_folder(config.name, config.revision)
    if folder is None:
        return None
    weights = weight_files(folder)
    if not weights or not all(path.is_file() for path in weights):
        return None
    others = (folder / name for name in ("config.json", *_EXTRACTOR_FILES))
    return [*weights, *(path for path in others if path.is_file())]
