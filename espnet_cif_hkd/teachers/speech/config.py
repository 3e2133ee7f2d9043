"""Options of a speech teacher, and its ``config.json``."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.teachers.payload import CODINGS, Payload
from espnet_cif_hkd.teachers.source import local_folder, resolve_teacher

DTYPES = ("float32", "bfloat16")
PADS = ("exact", "full")
# Options that ``build_speech_teacher`` reads.
OPTIONS = (
    *("teacher", "teacher_revision", "teacher_type", "teacher_dim", "teacher_conf"),
    *("layer", "pad", "rate", "teacher_dtype", "teacher_store", "store_coding"),
)
_LOWEST_RATE = 1000


@dataclass(frozen=True)
class SpeechConfig:
    """The model and the layers that provide the vectors of frames.

    Attributes:
        name: A folder, a hub name, or ``pkg://DISTRIBUTION/FOLDER``.
        revision: Commit or tag; required if ``name`` is a hub name.
        dim: Width of one layer; None: read from ``config.json``.
        layers: 0 is the input of the first layer, n the output of layer n, -1 the last
            one. The vectors of several layers are concatenated.
        pad: ``exact``, ``full`` or seconds of silence: only Whisper can read audio that
            is padded, at most to its window of 30 s.
        rate: Sampling rate of the recordings in Hz.
        dtype: Precision of the computation.
        coding: Format of stored vectors.
    """

    name: str
    revision: str | None = None
    dim: int | None = None
    layers: tuple[int, ...] = (-1,)
    pad: str = "exact"
    rate: int = 16000
    dtype: str = "float32"
    coding: str = "float16"


def speech_config(conf: Mapping[str, Any], check_place: bool = True) -> SpeechConfig:
    """Return the options of a mapping; opens nothing.

    Args:
        conf: The options, see :data:`OPTIONS`.
        check_place: Whether the folder or package of the teacher must exist.

    Raises:
        UserError: An option is missing or wrong.
    """
    name = conf.get("teacher")
    if not name or str(name).lower() in ("none", "null", "nil"):
        raise UserError(
            "teacher is not set; name a folder with a speech model of Hugging Face, a "
            "hub name or pkg://DISTRIBUTION/FOLDER"
        )
    dim, rate = conf.get("teacher_dim"), conf.get("rate", 16000)
    if dim is not None and not _is_integer(dim, 1):
        raise UserError(
            f"teacher_dim is {dim!r}; set it to the width of a layer of {name} "
            "(hidden_size or d_model in its config.json), or leave it out"
        )
    if not _is_integer(rate, _LOWEST_RATE):
        raise UserError(
            f"rate is {rate!r}; set it to the sampling rate of the recordings in Hz, "
            "such as 16000"
        )
    found = SpeechConfig(
        name=str(name),
        revision=conf.get("teacher_revision"),
        dim=dim,
        layers=_layers(conf.get("layer", -1)),
        pad=_pad(conf),
        rate=rate,
        dtype=_choice(conf, "teacher_dtype", DTYPES),
        coding=_choice(conf, "store_coding", CODINGS),
    )
    if check_place:
        resolve_teacher(found.name)
    return found


def _is_integer(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _layers(value: object) -> tuple[int, ...]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    numbers = [n for n in values if isinstance(n, int) and not isinstance(n, bool)]
    if not numbers or len(numbers) < len(values):
        raise UserError(
            f"layer is {value!r}; set it to an integer (0 is the input of the first "
            "layer, -1 the output of the last one) or to a list of integers"
        )
    return tuple(numbers)


def _pad(conf: Mapping[str, Any]) -> str:
    value = conf.get("pad") or PADS[0]
    if value in PADS:
        return str(value)
    with suppress(ValueError):
        seconds = float("nan" if isinstance(value, bool) else str(value))
        if 0 < seconds < 30:
            return f"{seconds:g}"
    raise UserError(
        f"pad: {value!r} is unknown; use {' or '.join(PADS)} or seconds of silence "
        "such as 0.5"
    )


def _choice(conf: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str:
    value = conf.get(name) or choices[0]
    if value not in choices:
        raise UserError(f"{name}: {value!r} is unknown; use {' or '.join(choices)}")
    return str(value)


@dataclass(frozen=True)
class ModelFacts:
    """What ``config.json`` says about a model.

    Attributes:
        config: The configuration of transformers.
        kind: ``model_type``.
        width: Width of a layer.
        num_layers: Number of layers.
    """

    config: Any
    kind: str
    width: int
    num_layers: int


def is_local(config: SpeechConfig) -> bool:
    """Whether the teacher's ``config.json`` is on this machine."""
    folder = local_folder(config.name, config.revision)
    return folder is not None and (folder / "config.json").is_file()


def read_facts(config: SpeechConfig) -> ModelFacts:
    """Read the teacher's ``config.json`` and check the options against it.

    Raises:
        UserError: It cannot be read, is of another kind of model, or does not fit the
            options.
    """
    from transformers import AutoConfig

    from espnet_cif_hkd.teachers.speech.encoder import KINDS

    place = model_place(config)
    try:
        found = AutoConfig.from_pretrained(
            place, revision=config.revision, trust_remote_code=False
        )
    # Readers of damaged files raise errors of many types.
    except Exception as e:
        raise cannot_open(config, "config.json", e) from e
    kind = str(getattr(found, "model_type", "unknown"))
    if kind not in KINDS:
        raise UserError(
            f"teacher {config.name}: it is a {kind} model, which is no speech encoder "
            f"that can teach; there are {', '.join(KINDS)}"
        )
    facts = ModelFacts(found, kind, found.hidden_size, found.num_hidden_layers)
    if config.dim is not None and config.dim != facts.width:
        raise UserError(
            f"teacher {config.name}: its layers have {facts.width} dimensions, but "
            f"teacher_dim is {config.dim}; set it to {facts.width} or leave it out"
        )
    if config.pad != "exact" and kind != "whisper":
        raise UserError(
            f"pad: {config.pad} is only for Whisper, and teacher {config.name} is a "
            f"{kind} model, which has no window of fixed length; set pad: exact"
        )
    layer_indices(config, facts.num_layers)
    return facts


def layer_indices(config: SpeechConfig, num_layers: int) -> list[int]:
    """Return the layers, counted from the input of the first one, 0 to ``num_layers``.

    Raises:
        UserError: There is no such layer.
    """
    found = [n + num_layers + 1 if n < 0 else n for n in config.layers]
    for asked, index in zip(config.layers, found, strict=True):
        if not 0 <= index <= num_layers:
            raise UserError(
                f"teacher {config.name}: there is no layer {asked}; it has 0 (the "
                f"input of the first layer) to {num_layers}"
            )
    return found


def payload_of(config: SpeechConfig, facts: ModelFacts | None) -> Payload:
    """Return kind, width and coding of the vectors.

    Raises:
        UserError: The width is unknown.
    """
    width = config.dim if facts is None else facts.width
    if width is None:
        raise UserError(
            f"teacher {config.name}: its config.json is not on this machine; set "
            "teacher_dim to the width of a layer"
        )
    return Payload("frames", width * len(config.layers), config.coding)


def model_place(config: SpeechConfig) -> str:
    """Return the folder or hub name of the teacher.

    Raises:
        UserError: There is no such folder or package, or a revision is missing.
    """
    from pathlib import Path

    place = resolve_teacher(config.name)
    if config.revision is None and not Path(place).is_dir():
        raise UserError(
            f"teacher {config.name}: there is no such folder here, and the content of "
            "a hub name may change: set teacher_revision to a commit of it, or teacher "
            "to a folder"
        )
    return place


def cannot_open(config: SpeechConfig, what: str, error: Exception) -> UserError:
    """Return the error for a file that cannot be opened."""
    reason = one_line(error, 200)
    revision = f" at revision {config.revision}" if config.revision else ""
    return UserError(
        f"teacher {config.name}{revision}: cannot open its {what}; correct teacher to "
        "a folder with a speech model of Hugging Face or to a hub name that can be "
        f"reached or is cached ({type(error).__name__}: {reason})"
    )
