#!/usr/bin/env python3
"""Write docs/configuration.md: all our keys of the YAML, from the code.

Types and defaults are from signatures, effects from docstrings, the paper's values from
tools/paper_values.yaml, all other text from tools/configuration.in. Run it after
changing any of them:

    python3 tools/generate_docs.py
"""

import collections.abc
import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PAGE = ROOT / "docs/configuration.md"
TEMPLATE = ROOT / "tools/configuration.in"
PAPER = ROOT / "tools/paper_values.yaml"

# Arguments that ESPnet passes, which are no keys of a configuration.
_MODEL = {
    *("vocab_size", "token_list", "frontend", "specaug", "normalize"),
    *("preencoder", "encoder", "postencoder", "decoder", "ctc", "joint_network"),
}
_BUILT = {
    "CIFASRModel": _MODEL,
    "HybridASRModel": _MODEL,
    "PretrainModel": _MODEL,
    "TransducerASRModel": _MODEL,
    "CIFDecoder": {"vocab_size", "encoder_output_size"},
    "CIFNARDecoder": {"vocab_size", "encoder_output_size"},
    "CIFPredictor": {"input_size"},
    "CIFConformerEncoder": {"input_size"},
    "HKDCriterion": {"student"},
    "FramesCriterion": {"student"},
    "TransducerPathCriterion": {"student"},
    "SoftLabelsCriterion": {"student"},
    "TextOnlyCriterion": {"student"},
}
_TYPES = {int: "int", float: "float", str: "str", bool: "bool", types.NoneType: "null"}


@dataclass(frozen=True)
class Key:
    """A key: name, type and default in YAML, and effect."""

    name: str
    type: str
    default: str
    effect: str


def yaml_type(annotation: Any) -> str:
    """Return a type in words, such as ``int or null`` for ``int | None``.

    Raises:
        TypeError: YAML has no such type.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _TYPES:
        return _TYPES[annotation]
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(yaml_type(arg) for arg in args)
    if origin in (list, tuple, collections.abc.Sequence):
        return f"list of {yaml_type(args[0])}"
    if origin in (dict, collections.abc.Mapping):
        return "mapping"
    raise TypeError(f"no YAML type for {annotation}")


def yaml_value(value: Any) -> str:
    """Return a default in YAML."""
    if isinstance(value, tuple):
        value = list(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")


def effects(documented: Any) -> dict[str, str]:
    """Return the texts of ``Args:`` or ``Attributes:`` in a docstring by name."""
    found: dict[str, str] = {}
    section = re.search(
        r"^(?:Args|Attributes):\n((?:(?: .*)?\n)+)",
        (inspect.getdoc(documented) or "") + "\n",
        re.MULTILINE,
    )
    for entry in re.split(r"^ {4}(?=\S)", section[1] if section else "", flags=re.M):
        names, _, text = entry.partition(":")
        for name in names.split(","):
            found[name.strip()] = _plain(" ".join(text.split()))
    found.pop("", None)
    return found


def _plain(text: str) -> str:
    """Convert a sentence of a docstring to Markdown, without its last full stop."""
    text = re.sub(r":(?:class|func):`(\w+)`", r"`\1`", text)
    text = re.sub(r"``([^`]*)``", r"`\1`", text)
    return text.replace("|", "\\|").removesuffix(".")


def keys_of(documented: Any, only: str | None = None) -> Iterator[Key]:
    """Yield the keys of YAML of a class, a dataclass or a function.

    Args:
        documented: the class or function with signature and docstring.
        only: the only parameter that is a key; None: all.

    Raises:
        ValueError: the docstring does not describe a key.
    """
    texts, signature = effects(documented), inspect.signature(documented)
    call = documented
    if inspect.isclass(documented) and not dataclasses.is_dataclass(documented):
        call = documented.__init__
    hints = typing.get_type_hints(call)
    for parameter in signature.parameters.values():
        name = parameter.name
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        if name in _BUILT.get(documented.__name__, ()) or only not in (None, name):
            continue
        if not texts.get(name):
            raise ValueError(
                f"{documented.__qualname__}: the docstring does not say what {name} "
                "does; add it under Args"
            )
        default = parameter.default
        yield Key(
            name,
            yaml_type(hints[name]),
            "" if default is inspect.Parameter.empty else yaml_value(default),
            texts[name],
        )


def sections() -> dict[str, list[Key]]:
    """Return the keys of each mapping of the YAML, by name of the mapping."""
    from espnet_cif_hkd.cif import CIFPredictor, integrate_and_fire
    from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
    from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
    from espnet_cif_hkd.decoder.cif_whisper import CIFWhisperDecoder
    from espnet_cif_hkd.distill.frames import FramesCriterion
    from espnet_cif_hkd.distill.hkd import HKDCriterion
    from espnet_cif_hkd.distill.level_options import LevelOptions
    from espnet_cif_hkd.distill.options import AcousticOptions, LinguisticOptions
    from espnet_cif_hkd.distill.schedule import CommonOptions
    from espnet_cif_hkd.distill.soft_labels import SoftLabelsCriterion
    from espnet_cif_hkd.distill.text_only import TextOnlyCriterion
    from espnet_cif_hkd.distill.transducer_path import TransducerPathCriterion
    from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
    from espnet_cif_hkd.encoder.joined import JoinedEncoder
    from espnet_cif_hkd.encoder.kaldi_fbank import KaldiFbankFrontend
    from espnet_cif_hkd.encoder.silence import SilencePreprocessor
    from espnet_cif_hkd.encoder.speech_teacher import SpeechTeacherFrontend
    from espnet_cif_hkd.models.cif import CIFASRModel
    from espnet_cif_hkd.models.hybrid import HybridASRModel
    from espnet_cif_hkd.models.pretrain import PretrainModel
    from espnet_cif_hkd.models.transducer import TransducerASRModel

    tail = keys_of(integrate_and_fire, only="tail_threshold")
    return {
        "frontend_conf": list(keys_of(SpeechTeacherFrontend)),
        "encoder_conf": list(keys_of(CIFConformerEncoder)),
        "decoder_conf": list(keys_of(CIFDecoder)),
        "nar_conf": list(keys_of(CIFNARDecoder)),
        "cif_whisper": list(keys_of(CIFWhisperDecoder)),
        "joined": list(keys_of(JoinedEncoder)),
        "kaldi_fbank": list(keys_of(KaldiFbankFrontend)),
        "silence": list(keys_of(SilencePreprocessor)),
        "predictor_conf": [*keys_of(CIFPredictor), *tail],
        "model_conf": list(keys_of(CIFASRModel)),
        "hybrid": list(keys_of(HybridASRModel)),
        "every_criterion": list(keys_of(CommonOptions)),
        "pretrain": list(keys_of(PretrainModel)),
        "frames": list(keys_of(FramesCriterion)),
        "transducer_path": list(keys_of(TransducerPathCriterion)),
        "soft_labels": list(keys_of(SoftLabelsCriterion)),
        "text_only": list(keys_of(TextOnlyCriterion)),
        "level": list(keys_of(LevelOptions)),
        "transducer": list(keys_of(TransducerASRModel)),
        "criterion_conf": [_level_below(key) for key in keys_of(HKDCriterion)],
        "acoustic": list(keys_of(AcousticOptions)),
        "linguistic": list(keys_of(LinguisticOptions)),
    }


def _level_below(key: Key) -> Key:
    """Replace the defaults of ACD and LRD, which have separate tables."""
    if key.name in ("acoustic", "linguistic"):
        return dataclasses.replace(key, default="below")
    return key


def paper_values() -> dict[str, Any]:
    """tools/paper_values.yaml."""
    values: dict[str, Any] = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    return values


def table(name: str, keys: list[Key], paper: dict[str, Any]) -> str:
    """Return the table of the keys of a mapping.

    Raises:
        ValueError: the paper's values name a key that does not exist.
    """
    values = paper["values"].get(name) or {}
    unknown = set(values) - {key.name for key in keys}
    if unknown:
        raise ValueError(f"{PAPER}: {name} has no key {sorted(unknown)}")
    rows = ["| key | type | default | paper | effect |", "|---|---|---|---|---|"]
    for key in keys:
        cell = "–"
        if key.name in values:
            value, source = values[key.name]
            cell = f"`{yaml_value(value)}` ({source})"
        default = key.default
        if default not in ("", "below"):
            default = f"`{default}`"
        rows.append(
            f"| `{key.name}` | {key.type} | {default} | {cell} | {key.effect} |"
        )
    return "\n".join(rows)


def fixed_options() -> str:
    """Return the options of ESPnet's conformer that ``encoder_conf`` may have."""
    from espnet_cif_hkd.encoder import options

    return ", ".join(
        f"`{name}: {yaml_value(value)}`" for name, value in options._FIXED.items()
    )


def page() -> str:
    """Return the text of docs/configuration.md."""
    paper = paper_values()
    parts = {name: table(name, keys, paper) for name, keys in sections().items()}
    parts["fixed_options"] = fixed_options()
    parts["sources"] = "\n".join(
        f"- ({letter}) {text}" for letter, text in paper["sources"].items()
    )
    text = TEMPLATE.read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], text)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
