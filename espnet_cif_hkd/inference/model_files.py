"""Find the files of a trained model: an experiment, a packed model, or a tag."""

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.inference.onnx_folder import is_exported
from espnet_cif_hkd.io.digest import sha256
from espnet_cif_hkd.io.lock import alone
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.missing import how_to_install

_CONFIG = "config.yaml"
# Names of checkpoints, the preferred first.
_PREFERRED = (
    r"valid\.acc\.ave.*\.pth",
    r"valid\..*\.ave.*\.pth",
    r"valid\..*best\.pth",
    r"\d+epoch\.pth",
)


def downloaded(tag: str) -> dict[str, Any]:
    """Download a model by its tag, or unpack a packed one, by ESPnet's ways.

    Args:
        tag: A tag of ESPnet's model zoo or of the Hugging Face hub, or a file.

    Returns:
        Arguments of ``Speech2Text``.

    Raises:
        UserError: ``espnet_model_zoo`` is not installed.
    """
    try:
        from espnet_model_zoo.downloader import ModelDownloader
    except ImportError:
        raise UserError(
            f"{tag}: models with a tag need espnet_model_zoo: "
            f"{how_to_install('espnet_model_zoo')}"
        ) from None
    return dict(ModelDownloader().download_and_unpack(tag))


def model_files(model: str | Path) -> dict[str, Any]:
    """Return the arguments of ``Speech2Text`` for a model.

    Args:
        model: The folder of an experiment or of an unpacked model, a checkpoint in the
            folder of an experiment, a zip file, or a tag.

    Raises:
        UserError: It is no model.
    """
    path = Path(model)
    if path.is_dir():
        return _in_folder(path)
    if path.suffix == ".pth":
        return _with_config(path)
    if path.is_file():
        return _unpacked(path)
    # NAME/NAME or NAME, with nothing of a path of this machine.
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(model)) and path.suffix != ".zip":
        try:
            return downloaded(str(model))
        except UserError:
            raise
        except Exception as error:
            reason = one_line(error, 200)
            raise UserError(
                f"{model} is neither a folder nor a file, and no tag of a model that "
                f"can be downloaded ({type(error).__name__}: {reason})"
            ) from error
    raise UserError(
        f"{model}: no such model; give the folder of an experiment (with {_CONFIG}), a "
        "zip file of stage 14, or a tag of a model"
    )


def _in_folder(folder: Path) -> dict[str, Any]:
    if (folder / "meta.yaml").is_file() and not (folder / _CONFIG).is_file():
        return _named_in_meta(folder)
    names = sorted(path.name for path in folder.glob("*.pth"))
    for pattern in _PREFERRED:
        found = [name for name in names if re.fullmatch(pattern, name)]
        if found:
            # Of epochs the last one.
            best = max(found, key=lambda name: (_epoch(name), name == min(found)))
            return _with_config(folder / best)
    if is_exported(folder):
        raise UserError(
            f"{folder} is an exported model, which `espnet-cif transcribe` and "
            "OnnxRecognizer read: give the folder of the training (exp/asr_…)"
        )
    raise UserError(
        f"{folder} is no model: it has no checkpoint such as valid.acc.ave.pth; give "
        "the folder of a training (exp/asr_…)"
    )


def _epoch(name: str) -> int:
    match = re.match(r"\d+", name)
    return int(match[0]) if match else 0


def _with_config(checkpoint: Path) -> dict[str, Any]:
    config = checkpoint.parent / _CONFIG
    for path in (checkpoint, config):
        if not path.is_file():
            raise UserError(f"{path} is missing: give the folder of a training")
    return {"asr_train_config": str(config), "asr_model_file": str(checkpoint)}


def _named_in_meta(folder: Path) -> dict[str, Any]:
    try:
        meta = yaml.safe_load((folder / "meta.yaml").read_text(encoding="utf-8"))
        named = {**meta["files"], **meta["yaml_files"]}
    except (yaml.YAMLError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / 'meta.yaml'} is damaged: unpack it again"
        ) from error
    return {key: str(folder / name) for key, name in named.items()}


def _unpacked(archive: Path) -> dict[str, Any]:
    """Unpack a zip file of stage 14 into the cache, once for each content."""
    from espnet2.main_funcs.pack_funcs import unpack

    try:
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{archive} is no packed model ({error}): give a zip file of stage 14"
        ) from error
    if "meta.yaml" not in names:
        raise UserError(f"{archive} is no packed model: it has no meta.yaml")
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(
                f"{archive}: {name!r} would leave its folder: do not trust this file"
            )
    folder = _cache() / sha256(archive)[:32]
    done = folder / ".unpacked"
    with alone(folder.with_suffix(".lock"), log):
        if not done.is_file():
            unpack(archive, folder, use_cache=False)
            done.touch()
    return _named_in_meta(folder)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "espnet_cif_hkd" / "models"


@contextmanager
def recipe_folder(config: str | Path) -> Iterator[None]:
    """Work in the folder to which the paths of a configuration are relative.

    It is the folder of the recipe, if the configuration is in its ``output_dir``;
    otherwise the working directory stays.
    """
    here = Path.cwd()
    folder = Path(config).resolve().parent
    known = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    output = PurePosixPath(str((known or {}).get("output_dir", "")))
    root = folder
    for part in reversed(output.parts):
        if root.name != part:
            break
        root = root.parent
    else:
        if output.parts and not output.is_absolute():
            os.chdir(root)
    try:
        yield
    finally:
        os.chdir(here)
