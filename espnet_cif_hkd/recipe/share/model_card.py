"""The model card: use and origin of a shared model."""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from espnet_cif_hkd import __version__
from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.plugin.registration import REGISTERED
from espnet_cif_hkd.recipe.hooks import teacher_options, trained_by
from espnet_cif_hkd.recipe.paths import sampling_rate
from espnet_cif_hkd.recipe.share import speech_model
from espnet_cif_hkd.recipe.share.packed import Packed
from espnet_cif_hkd.recipe.share.published import (
    has_credentials,
    publishable,
    publishable_config,
)

# The file of the recipe with facts that only the maker of the model knows.
FACTS = Path("conf/model_card.yaml")
# Keys with text for the card; other keys are metadata for the hub.
_TEXT_KEYS = ("corpus", "notes", "package_url", "speech_model_license")
# Addresses that pip accepts after "NAME @", without characters to escape in quotes.
_URL = re.compile(r"[a-z+]+://[\w.~:/?#@%&=+,-]+")
# Options of asr_inference that are also arguments of Speech2Text and change its text.
_DECODING = (
    *("beam_size", "ctc_weight", "lm_weight", "penalty", "normalize_length"),
    *("maxlenratio", "minlenratio"),
)
# Names of our classes in configurations, by their key.
_OURS = {
    table.removesuffix("_choices"): tuple(names)
    for table, names in reversed(REGISTERED.items())  # the model first
}


def read_facts() -> dict[str, Any]:
    """Read ``conf/model_card.yaml``; empty without this file.

    Raises:
        UserError: The file is not YAML, or not ``key: value`` lines.
    """
    if not FACTS.is_file():
        return {}
    try:
        facts = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = one_line(error)
        raise UserError(f"{FACTS} is not YAML ({reason}): correct it") from error
    if facts is None:
        return {}
    if not isinstance(facts, dict):
        raise UserError(f"{FACTS} must contain 'key: value' lines")
    for key in _TEXT_KEYS:
        if not isinstance(facts.get(key, ""), str):
            raise UserError(f"{FACTS}: {key} must be text")
    url = facts.get("package_url")
    if url is not None and not _URL.fullmatch(url):
        raise UserError(
            f"{FACTS}: package_url {url!r} is no address for pip, such as "
            "git+https://HOST/espnet-cif-hkd@REVISION"
        )
    if url is not None and has_credentials(url):
        raise UserError(
            f"{FACTS}: package_url has a password or a token, and the card is "
            "published: write an address without it"
        )
    return {
        key: value if key == "package_url" else publishable_config(value, queries=True)
        for key, value in facts.items()
    }


def training_command(folder: Path) -> str | None:
    """Return the training command of ``asr.sh`` without local paths and credentials.

    It is read from ``run.sh``, which stage 11 writes into ``folder``; None without it.
    """
    script = folder / "run.sh"
    if not script.is_file():
        return None
    line = script.read_text(encoding="utf-8").split("\n", 1)[0]
    return publishable(re.sub(r"\s+--stage 11 \"\$@\"; exit \$\?$", "", line))


def decoding_options(config_file: str, arguments: str) -> dict[str, Any]:
    """Return the options of stage 12 that are also arguments of ``Speech2Text``.

    Args:
        config_file: ``--inference_config``; may be empty or missing.
        arguments: ``--inference_args``, which take precedence.
    """
    found: dict[str, Any] = {}
    if os.path.isfile(config_file):
        found = yaml.safe_load(Path(config_file).read_text(encoding="utf-8")) or {}
    for name, value in re.findall(r"--([\w-]+)[\s=]+(\S+)", arguments):
        found[name.replace("-", "_")] = yaml.safe_load(value)
    return {name: found[name] for name in _DECODING if name in found}


def _call(function: str, first: str, named: Mapping[str, Any]) -> str:
    words = [first, *(f"{name}={value!r}" for name, value in named.items())]
    line = f"{function}({', '.join(words)})"
    if len(line) <= 80:
        return line
    return "\n".join([f"{function}(", *(f"    {word}," for word in words), ")"])


def _teachers(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return criterion, name and revision of each teacher in the configuration."""
    conf = dict(config.get("model_conf") or {})
    if conf.get("criterion") in (None, "none", "null", "nil"):
        conf.pop("criterion_conf", None)
    found = []
    for place, options in teacher_options(conf):
        teacher = options.get("teacher") or options.get("lm")
        if teacher:
            revision = options.get("teacher_revision") or options.get("lm_revision")
            named = {"name": publishable(str(teacher)), "revision": revision}
            found.append({"criterion": place, **named})
    return found


def _results(path: Path) -> str | None:
    if not path.is_file():
        return None
    text = re.sub(
        r"<!--.*?-->\n*", "", path.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    # One heading level down, below "Scores".
    text = re.sub(r"^# RESULTS\n*", "", text)
    return publishable(re.sub(r"^#", "##", text, flags=re.MULTILINE).strip())


def build(repo: str, packed: Packed, folder: Path, decoding: Mapping[str, Any]) -> str:
    """Return the text of ``README.md``.

    Args:
        repo: ``USER/NAME``.
        packed: The packed model.
        folder: Folder with its unpacked files.
        decoding: Arguments for ``Speech2Text``.

    Raises:
        UserError: ``conf/model_card.yaml`` is malformed.
    """
    from huggingface_hub import ModelCard, ModelCardData

    facts = read_facts()
    config = packed.configs["asr_train_config"]
    config_file = packed.config_files["asr_train_config"]
    if "lm_file" not in packed.files:
        decoding = {k: v for k, v in decoding.items() if k != "lm_weight"}
    experiment = Path(config_file).parent
    if not facts.get("license"):
        log(
            "stage 15: the model card states no licence: write 'license: …' (a name of "
            f"the hub's list) into {FACTS}, and run stage 15 again"
        )
    trained_with, index_name = f"ESPnet {config.get('version', '')}".rstrip(), None
    kind, module, packages = (
        "speech recogniser",
        "espnet2.bin.asr_inference",
        "soundfile",
    )
    ours = [key for key, names in _OURS.items() if config.get(key) in names]
    if ours:
        version = trained_by(folder / packed.files["asr_model_file"])
        by = f"espnet-cif-hkd {version or ''}".rstrip()
        trained_with = f"{by} on {trained_with}"
        module = "espnet_cif_hkd"
        named = {"cif": "CIF ", "transducer": "transducer "}
        kind = named.get(config.get("decoder", ""), "") + kind
        packages = index_name = f"espnet-cif-hkd=={version or __version__}"
        if facts.get("package_url"):
            packages, index_name = f'"espnet-cif-hkd @ {facts["package_url"]}"', None
    reads_tokenizer = config.get("token_type") == "hugging_face"
    speech = speech_model.card_entries(config, facts)
    known = {
        "library_name": "espnet",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["espnet", "audio", "automatic-speech-recognition"],
        **{k: v for k, v in facts.items() if k not in _TEXT_KEYS},
    }
    unstated = "not stated by the maker of the model"
    card = ModelCard.from_template(
        ModelCardData(**known),
        template_str=_template(),
        name=PurePosixPath(repo).name,
        kind=kind,
        trained_with=trained_with,
        packages=f"{packages} transformers" if reads_tokenizer or speech else packages,
        index_name=index_name,
        module=module,
        call=_call("speech2text = Speech2Text.from_pretrained", f'"{repo}"', decoding),
        rate=sampling_rate(str((config.get("frontend_conf") or {}).get("fs", "16k"))),
        reads_tokenizer=reads_tokenizer,
        classes=", ".join(f"`{key}: {config[key]}`" for key in ours),
        corpus=facts.get("corpus") or unstated,
        teachers=_teachers(config),
        **speech,
        config_file=config_file,
        command=training_command(experiment),
        results=_results(folder / experiment / "RESULTS.md"),
        licence=facts.get("license") or unstated,
        notes=str(facts.get("notes") or "").strip(),
    )
    return str(card)


def _template() -> str:
    # Template lines with only a condition leave no empty line.
    text = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    return re.sub(r"^({%[^\n]*%})\n", r"\1", text, flags=re.MULTILINE)
