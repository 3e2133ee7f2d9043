"""The speech model of ``frontend: speech_teacher`` in a shared model."""

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.recipe.hooks import teacher_folder
from espnet_cif_hkd.recipe.share.published import publishable

FRONTEND = "speech_teacher"
_PACKAGE = "pkg://"


def _options(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return ``frontend_conf`` of a model with this frontend, else None."""
    if config.get("frontend") != FRONTEND:
        return None
    return config.get("frontend_conf") or {}


def _by_value(conf: Mapping[str, Any]) -> bool:
    return bool(conf.get("train")) or conf.get("weights") == "value"


def require_portable(config: Mapping[str, Any], config_file: str) -> None:
    """Check that other machines can open the speech model.

    Raises:
        UserError: The model is a folder of this machine, and the checkpoint does not
            have its weights.
    """
    conf = _options(config)
    if conf is None or _by_value(conf):
        return
    name = str(conf.get("teacher"))
    if not name.startswith(_PACKAGE) and os.path.isdir(os.path.expanduser(name)):
        raise UserError(
            f"{config_file}: frontend_conf.teacher {name} is a folder of this machine, "
            "and decoding opens it: name the model by pkg://DISTRIBUTION/FOLDER or by "
            "a hub name, or train with frontend_conf.weights: value"
        )


def card_entries(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of the model card about the speech model; {} without one.

    The licence is ``speech_model_license`` of conf/model_card.yaml, else that in the
    model's README.md, else that of its pip package.

    Args:
        config: Configuration of the training.
        facts: Content of conf/model_card.yaml.
    """
    conf = _options(config)
    if conf is None:
        return {}
    name = str(conf.get("teacher"))
    licence = facts.get("speech_model_license") or _licence(name, conf)
    if not licence:
        log(
            "stage 15: the licence of the speech model is unknown: write "
            "'speech_model_license: …' into conf/model_card.yaml, and run stage 15 "
            "again"
        )
    package = ""
    if name.startswith(_PACKAGE) and not _by_value(conf):
        package = name[len(_PACKAGE) :].partition("/")[0]
    return {
        "speech_model": publishable(name),
        "speech_revision": conf.get("teacher_revision"),
        "speech_trained": bool(conf.get("train")),
        "speech_by_value": _by_value(conf),
        "speech_licence": licence or "not stated by the maker of this model",
        "speech_package": package,
    }


def _licence(name: str, conf: Mapping[str, Any]) -> str | None:
    """Return the licence that the files of a model state; None if they do not."""
    folder = teacher_folder(name, conf.get("teacher_revision"))
    if folder is not None and (found := _licence_in(folder / "README.md")):
        return found
    if not name.startswith(_PACKAGE):
        return None
    package = name[len(_PACKAGE) :].partition("/")[0]
    try:
        stated = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    for field in ("License-Expression", "License"):
        lines = (str(stated[field]) if field in stated else "").strip().splitlines()
        if len(lines) == 1 and lines[0].lower() != "unknown":
            return f"{lines[0]} (of the package {package})"
    return None


def _licence_in(readme: Path) -> str | None:
    """Return ``license`` of the header of a model card."""
    import yaml

    try:
        _, header, _ = readme.read_text(encoding="utf-8").split("---\n", 2)
        found = yaml.safe_load(header)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    licence = found.get("license") if isinstance(found, dict) else None
    return licence if isinstance(licence, str) else None
