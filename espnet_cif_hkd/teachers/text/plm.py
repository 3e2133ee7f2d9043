"""Opens a pretrained language model (PLM) as teacher."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.teachers.source import resolve_teacher

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


@dataclass(frozen=True)
class TeacherConfig:
    """The PLM and the layer that provide the targets.

    Attributes:
        name: a folder, a hub name, or ``pkg://DISTRIBUTION/FOLDER``, a folder in an
            installed pip package.
        dim: width of the vectors.
        revision: commit or tag; required if ``name`` is a hub name.
        layer: 0 is the embedding, n the output of layer n, -1 the last layer.
        dtype: "float32" or "bfloat16": precision of the PLM's computation.
        case: case of the transcripts for the PLM, see ``TokenSpeller``.
    """

    name: str
    dim: int
    revision: str | None = None
    layer: int = -1
    dtype: str = "float32"
    case: str = "auto"

    def __post_init__(self) -> None:
        if self.dtype not in tuple(DTYPES):
            raise UserError(
                f"teacher_dtype: {self.dtype!r} is unknown; use {' or '.join(DTYPES)}"
            )


def teacher_config(conf: Mapping[str, Any]) -> TeacherConfig:
    """Return the PLM and the layer of a ``criterion_conf``.

    Raises:
        UserError: ``teacher`` or ``teacher_dim`` is missing, or an option is wrong.
    """
    name, dim = conf.get("teacher"), conf.get("teacher_dim")
    if not name or str(name).lower() in ("none", "null", "nil"):
        raise UserError(
            "criterion_conf.teacher is not set; name a folder, a hub name or "
            "pkg://DISTRIBUTION/FOLDER, or set both weights to 0"
        )
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise UserError(
            f"criterion_conf.teacher_dim is {dim!r}; set it to the width of the "
            f"vectors of {name} (hidden_size in its config.json)"
        )
    layer = conf.get("layer", -1)
    if type(layer) is not int:
        raise UserError(
            f"criterion_conf.layer is {layer!r}; set it to an integer (0 is the "
            "embedding, -1 the output of the last layer)"
        )
    return TeacherConfig(
        name=str(name),
        dim=dim,
        revision=conf.get("teacher_revision"),
        layer=layer,
        dtype=conf.get("teacher_dtype", "float32"),
        case=conf.get("case", "auto"),
    )


def fixed_place(config: TeacherConfig) -> str:
    """Return the folder or hub name of the PLM; its content must be fixed.

    Raises:
        UserError: there is no such folder, or a hub name has no revision.
    """
    place = resolve_teacher(config.name)
    if config.revision is None and not Path(place).is_dir():
        raise UserError(
            f"teacher {config.name}: there is no such folder here, and the content of "
            "a hub name may change: set "
            "criterion_conf.teacher_revision to a commit of it, or "
            "criterion_conf.teacher to a folder"
        )
    return place


def open_config(config: TeacherConfig) -> Any:
    """Open the PLM's configuration; check width and layer.

    Raises:
        UserError: the configuration cannot be read, or does not fit ``config``.
    """
    from transformers import AutoConfig

    place = fixed_place(config)
    try:
        plm_config = AutoConfig.from_pretrained(
            place, revision=config.revision, trust_remote_code=False
        )
    except (OSError, ValueError) as e:
        raise cannot_open(config, "config.json", e) from e
    size = getattr(plm_config, "hidden_size", None)
    if size is None:
        raise UserError(
            f"teacher {config.name}: its config.json names no hidden_size, so it is no "
            "text encoder; choose another teacher"
        )
    if size != config.dim:
        raise UserError(
            f"teacher {config.name}: its vectors have {size} dimensions, but "
            f"teacher_dim is {config.dim}; set criterion_conf.teacher_dim to {size}"
        )
    layer_index(config, plm_config.num_hidden_layers)
    return plm_config


def layer_index(config: TeacherConfig, num_layers: int) -> int:
    """Return ``config.layer`` counted from the embedding, 0 to ``num_layers``.

    Raises:
        UserError: there is no such layer.
    """
    index = config.layer + num_layers + 1 if config.layer < 0 else config.layer
    if not 0 <= index <= num_layers:
        raise UserError(
            f"teacher {config.name}: there is no layer {config.layer}; it has 0 (the "
            f"embedding) to {num_layers}"
        )
    return index


def open_tokenizer(config: TeacherConfig) -> Any:
    """Open the PLM's tokenizer.

    Raises:
        UserError: the tokenizer cannot be read or has no character offsets.
    """
    from transformers import AutoTokenizer

    place = resolve_teacher(config.name)
    folder = Path(place)
    # Without these files transformers builds a tokenizer with an empty vocabulary.
    if folder.is_dir() and not any(any(folder.glob(f)) for f in _TOKENIZER_FILES):
        raise UserError(
            f"teacher {config.name}: the folder holds no tokenizer "
            f"({', '.join(_TOKENIZER_FILES)}); get a complete copy"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            place, revision=config.revision, trust_remote_code=False, use_fast=True
        )
    # Tokenizer classes raise different errors if their files are missing.
    except Exception as e:
        raise cannot_open(config, "tokenizer", e) from e
    if not tokenizer.is_fast:
        raise UserError(
            f"teacher {config.name}: it has no fast tokenizer (tokenizer.json), and "
            "only those have the characters of each token; convert it with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...), or choose "
            "another teacher"
        )
    return tokenizer


def open_teacher(config: TeacherConfig) -> tuple[Any, Any]:
    """Open the PLM's tokenizer and its frozen encoder, on the CPU.

    Raises:
        UserError: a file is missing or does not fit ``config``.
    """
    from espnet_cif_hkd.teachers.text.files import incomplete
    from espnet_cif_hkd.teachers.text.probe import probe

    plm_config = open_config(config)
    tokenizer = open_tokenizer(config)
    place = resolve_teacher(config.name)
    folder = Path(place)
    safe = any(folder.glob("*.safetensors")) if folder.is_dir() else None
    try:
        model, report = model_class(plm_config).from_pretrained(
            place,
            config=plm_config,
            revision=config.revision,
            trust_remote_code=False,
            use_safetensors=safe,
            output_loading_info=True,
        )
    # Readers of damaged files raise errors of many types.
    except Exception as e:
        raise cannot_open(config, "weights", e) from e
    # Only layers provide targets; a pooler or decoder may be missing.
    unused = ("pooler.", "decoder.")
    missing = [k for k in report["missing_keys"] if not k.startswith(unused)]
    if missing:
        raise incomplete(config, sorted(missing))
    if getattr(plm_config, "is_encoder_decoder", False) and hasattr(model, "decoder"):
        model = model.get_encoder()
    model.requires_grad_(False)
    # In float32, because the rounding of bfloat16 would hide differences.
    probe(config, tokenizer, model.float().eval())
    return tokenizer, model.to(DTYPES[config.dtype])


def model_class(plm_config: Any) -> Any:
    """Return the auto class that builds only the encoder, if there is such a class."""
    from transformers import AutoModel, AutoModelForTextEncoding
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

    found = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(plm_config), None)
    encoder_only = found is not None and found.__name__.endswith("EncoderModel")
    return AutoModelForTextEncoding if encoder_only else AutoModel


def unknown_text(tokenizer: Any) -> str:
    """Return the text for ``<unk>`` that the PLM reads as its own unknown token."""
    return tokenizer.unk_token or tokenizer.mask_token or ""


def cannot_open(config: TeacherConfig, what: str, error: Exception) -> UserError:
    """Return the error for files of a PLM that cannot be opened."""
    reason = one_line(error, 200)
    revision = f" at revision {config.revision}" if config.revision else ""
    return UserError(
        f"teacher {config.name}{revision}: cannot open its {what}; correct "
        "criterion_conf.teacher to a folder with a Hugging Face model or to a hub name "
        f"that can be reached or is cached ({type(error).__name__}: {reason})"
    )
