"""The model card: what a stranger must know about a shared model to use it."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from espnet_cif_hkd import __version__
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.recipe.paths import sampling_rate
from espnet_cif_hkd.recipe.share.packed import Packed

# What only the maker of a model can know stands in this file of the recipe.
FACTS = Path("conf/model_card.yaml")
# Keys of it that are text for the card; the others are the hub's metadata.
_TEXT_KEYS = ("corpus", "notes", "package_url")
# What pip takes behind "NAME @"; between the quotes of a shell it must stay as it is.
_URL = re.compile(r"[a-z+]+://[\w.~:/?#@%&=+,-]+")
# Options of asr_inference that are also arguments of Speech2Text and change its text.
_DECODING = (
    *("beam_size", "ctc_weight", "lm_weight", "penalty", "normalize_length"),
    *("maxlenratio", "minlenratio"),
)
# Names of our classes in configurations, see espnet_cif_hkd.plugin.registration.
_OURS = {"model": ("cif",), "decoder": ("cif",), "encoder": ("cif_conformer",)}


def read_facts() -> dict[str, Any]:
    """What ``conf/model_card.yaml`` says; empty without this file.

    Raises:
        UserError: The file is not YAML, or not ``key: value`` lines.
    """
    if not FACTS.is_file():
        return {}
    try:
        facts = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
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
    return facts


def metadata(facts: Mapping[str, Any]) -> str:
    """The YAML block at the top of a card, which the hub reads."""
    known: dict[str, Any] = {
        "library_name": "espnet",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["espnet", "audio", "automatic-speech-recognition"],
    }
    known.update({k: v for k, v in facts.items() if k not in _TEXT_KEYS})
    text: str = yaml.safe_dump(known, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n"


def _is_ours(config: Mapping[str, Any]) -> bool:
    return any(config.get(key) in names for key, names in _OURS.items())


def training_command(folder: Path) -> str | None:
    """The command line of ``asr.sh`` that trained, from the ``run.sh`` it left."""
    script = folder / "run.sh"
    if not script.is_file():
        return None
    line = script.read_text(encoding="utf-8").split("\n", 1)[0]
    return re.sub(r"\s+--stage 11 \"\$@\"; exit \$\?$", "", line)


def _trained_by(model_file: Path) -> str | None:
    import torch

    from espnet_cif_hkd.models.checkpoint import made_by

    return made_by(
        torch.load(str(model_file), map_location="cpu", weights_only=True, mmap=True)
    )


def decoding_options(config_file: str, arguments: str) -> dict[str, Any]:
    """The options of stage 12 that ``Speech2Text`` takes, too.

    Args:
        config_file: ``--inference_config``; may be empty or missing.
        arguments: ``--inference_args``, which win.
    """
    found: dict[str, Any] = {}
    if config_file and Path(config_file).is_file():
        found = yaml.safe_load(Path(config_file).read_text(encoding="utf-8")) or {}
    for name, value in re.findall(r"--([\w-]+)[\s=]+(\S+)", arguments):
        found[name.replace("-", "_")] = yaml.safe_load(value)
    return {name: found[name] for name in _DECODING if name in found}


def _call(function: str, first: str, named: Mapping[str, Any]) -> list[str]:
    words = [first, *(f"{name}={value!r}" for name, value in named.items())]
    line = f"{function}({', '.join(words)})"
    if len(line) <= 80:
        return [line]
    return [f"{function}(", *(f"    {word}," for word in words), ")"]


def _package(version: str, url: str | None) -> tuple[str, list[str]]:
    """How pip is told of this package, and what must be said about it."""
    if url is not None:
        return f'"espnet-cif-hkd @ {url}"', []
    name = f"espnet-cif-hkd=={version}"
    return name, [
        f"Where no package index has `{name}`, write the path of a clone of its "
        "repository instead.",
        "",
    ]


def _usage(
    repo: str,
    config: Mapping[str, Any],
    version: str,
    decoding: Mapping[str, Any],
    url: str | None,
) -> list[str]:
    frontend = config.get("frontend_conf") or {}
    rate = sampling_rate(str(frontend.get("fs", "16k")))
    if not _is_ours(config):
        module, cure = "espnet2.bin.asr_inference", []
    else:
        module = "espnet_cif_hkd"
        names = ", ".join(
            f"`{key}: {config[key]}`"
            for key, ours in _OURS.items()
            if config.get(key) in ours
        )
        cure = [
            "ESPnet alone does not know the classes of this model "
            f"({names}) and stops with `must be one of`. The cure is one line before "
            "ESPnet's own `Speech2Text`: `import espnet_cif_hkd; "
            "espnet_cif_hkd.register()`. Its commands take `python3 -m espnet_cif_hkd` "
            "in place of `python3`.",
            "",
        ]
    packages, where = _package(version, url) if _is_ours(config) else ("soundfile", [])
    needed = "Neither a teacher nor `transformers` is needed."
    if config.get("token_type") == "hugging_face":
        packages += " transformers"
        needed = (
            "No teacher is needed; `transformers` reads the tokenizer, which is in "
            "this repository."
        )
    return [
        "## Use",
        "",
        "Beside ESPnet 202511 (Python 3.10, 3.11) or 202611 (Python 3.12):",
        "",
        "```sh",
        f"python3 -m pip install {packages} huggingface_hub pandas",
        "python3 -m pip install --no-deps espnet_model_zoo",
        "```",
        "",
        *where,
        "```python",
        "import soundfile",
        f"from {module} import Speech2Text",
        "",
        *_call("speech2text = Speech2Text.from_pretrained", f'"{repo}"', decoding),
        'text, *_ = speech2text(soundfile.read("speech.wav")[0])[0]',
        "```",
        "",
        f"`speech.wav` is one utterance, mono, at {rate} Hz. {needed}",
        "",
        *cure,
    ]


def teacher_lines(config: Mapping[str, Any]) -> list[str]:
    """Which language model taught, from the configuration of the training."""
    conf = config.get("model_conf") or {}
    criterion = conf.get("criterion_conf") or {}
    teacher = criterion.get("teacher")
    if conf.get("criterion") in (None, "none", "null", "nil") or not teacher:
        return ["- Teacher: none."]
    revision = criterion.get("teacher_revision")
    at = f", revision `{revision}`" if revision else ""
    return [
        f"- Teacher (`criterion: {conf['criterion']}`): `{teacher}`{at}. It took part "
        "in training only. None of its weights are in this repository; its own "
        "licence may still limit what a model taught by it may be used for."
    ]


def _results(path: Path) -> list[str]:
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"<!--.*?-->\n*", "", text, flags=re.DOTALL)
    # One level down: "Scores" is the heading above.
    text = re.sub(r"^# RESULTS\n*", "", text)
    return ["## Scores", "", re.sub(r"^#", "##", text, flags=re.MULTILINE).strip(), ""]


def build(repo: str, packed: Packed, folder: Path, decoding: Mapping[str, Any]) -> str:
    """The text of ``README.md``.

    Args:
        repo: ``USER/NAME``.
        packed: The packed model.
        folder: Where its files have been unpacked.
        decoding: Arguments for ``Speech2Text``.

    Raises:
        UserError: ``conf/model_card.yaml`` is malformed.
    """
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
    version = None
    if _is_ours(config):
        version = _trained_by(folder / packed.files["asr_model_file"])
    trained_with = f"ESPnet {config.get('version', '')}".rstrip()
    kind = "speech recogniser"
    if _is_ours(config):
        kind = f"CIF {kind}"
        by = f"espnet-cif-hkd {version or ''}".rstrip()
        trained_with = f"{by} on {trained_with}"
    command = training_command(experiment)
    licence = str(facts.get("license") or "not stated by the maker of the model")
    lines = [
        metadata(facts),
        f"# {PurePosixPath(repo).name}",
        "",
        f"A {kind}, trained with {trained_with}.",
        "",
        *_usage(
            *(repo, config, version or __version__, decoding),
            facts.get("package_url"),
        ),
        "## Training",
        "",
        f"- Corpus: {facts.get('corpus') or 'not stated by the maker of the model'}",
        *teacher_lines(config),
        f"- All settings: [{config_file}]({config_file})",
        *(["- Command:", "", "```sh", command, "```"] if command else []),
        "",
        *_results(folder / experiment / "RESULTS.md"),
        "## Licence",
        "",
        f"{licence}. Corpora and language models have licences of their own.",
        "",
    ]
    if facts.get("notes"):
        lines += [str(facts["notes"]).strip(), ""]
    return "\n".join(lines)
