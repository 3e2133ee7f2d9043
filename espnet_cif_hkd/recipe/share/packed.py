"""The content of a packed model, read from its archive."""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe.share.speech_model import require_portable

_AGAIN = "run stage 14 again (--skip_packing false)"


@dataclass(frozen=True)
class Packed:
    """A packed model, as ``espnet2.bin.pack`` writes it.

    Attributes:
        archive: The zip file.
        members: Names of the files in it.
        size: Total size of these files in bytes.
        files: Names of files in the archive by argument of ``Speech2Text``.
        config_files: The same for configurations.
        configs: Configurations by argument of ``Speech2Text``.
        meta: Content of ``meta.yaml``.
    """

    archive: Path
    members: list[str]
    size: int
    files: Mapping[str, str]
    config_files: Mapping[str, str]
    configs: Mapping[str, dict[str, Any]]
    meta: Mapping[str, Any]


def read_packed(archive: Path) -> Packed:
    """Read a packed model.

    Raises:
        UserError: The archive is missing, half-written or no packed recogniser.
    """
    if not archive.is_file():
        raise UserError(
            f"{archive} is missing: run stage 14 first (--skip_packing false)"
        )
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = [info for info in opened.infolist() if not info.is_dir()]
            meta = yaml.safe_load(opened.read("meta.yaml"))
            files, config_files = dict(meta["files"]), dict(meta["yaml_files"])
            # check_portable reports a name outside of the archive.
            members = [info.filename for info in infos]
            configs = {
                key: yaml.safe_load(opened.read(name))
                for key, name in config_files.items()
                if name in members
            }
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{archive} is no packed model ({error}): {_AGAIN}") from error
    except yaml.YAMLError as error:
        raise UserError(
            f"{archive} contains a file that is no YAML: {_AGAIN}"
        ) from error
    return Packed(
        *(archive, members, sum(info.file_size for info in infos)),
        *(files, config_files, configs, meta),
    )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def check_portable(packed: Packed) -> None:
    """Check that an archive works on other machines.

    ESPnet finds the files of an unpacked model by their names in the archive. It packs
    the target of a link under another name than in the configuration, or under an
    absolute one.

    Raises:
        UserError: A file has a wrong name, or decoding needs a folder of this machine;
            the message has the fix.
    """
    for name in (*packed.files.values(), *packed.config_files.values()):
        if PurePosixPath(name).is_absolute() or name not in packed.members:
            raise UserError(
                f"{packed.archive} would look for {name} on this machine: stage 14 of "
                "python3 -m espnet_cif_hkd.recipe packs it under its name in this "
                "folder"
            )
    known = {PurePosixPath(name) for name in packed.members}
    here = {Path(name).resolve() for name in packed.members}
    for key, config in packed.configs.items():
        require_portable(config, packed.config_files[key])
        for value in _strings(config):
            path = PurePosixPath(value)
            if "/" in value and path not in known and Path(value).resolve() in here:
                raise UserError(
                    f"{packed.config_files[key]} names {value}, which is packed under "
                    "another name and would not be found on another machine: write "
                    "the path relative to this folder into that configuration, and "
                    "run stage 14 again"
                )
