"""Fill the stores of a configuration's speech teachers from Kaldi data folders."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from espnet_cif_hkd.distill.choices import configured
from espnet_cif_hkd.encoder.speech_teacher import teacher_options
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.speech.base import Recording
from espnet_cif_hkd.teachers.speech.dump import Recordings, fill_speech_store
from espnet_cif_hkd.teachers.speech.recordings import (
    ListedRecording,
    data_folder,
    read_ahead,
)

FRONTEND = "speech_teacher"


@dataclass(frozen=True)
class SpeechStore:
    """A store of a speech teacher in a configuration.

    Attributes:
        label: Key of the teacher's options, for messages.
        folder: The store; None if the configuration names none.
        fill: Adds missing recordings to a folder.
    """

    label: str
    folder: str | None
    fill: Callable[[str, Recordings], Any]


def speech_stores(config: Mapping[str, Any]) -> list[SpeechStore]:
    """Return the speech teachers of a configuration, also those without a store.

    Args:
        config: A training configuration; ``frontend``, ``frontend_conf`` and
            ``model_conf`` are used.

    Raises:
        UserError: An option is wrong.
    """
    found = []
    conf = config.get("frontend_conf") or {}
    if config.get("frontend") == FRONTEND and not conf.get("train"):
        store = conf.get("teacher_store") or None
        own = partial(fill_speech_store, teacher_options(conf))
        found.append(SpeechStore("frontend_conf", store, own))
    for item in configured(config.get("model_conf") or {}):
        with item.naming():
            teachers = item.cls.speech_teachers(item.conf)
        for name, own_conf in teachers.items():
            store = own_conf.get("teacher_store") or None
            fill = partial(fill_speech_store, own_conf)
            found.append(SpeechStore(f"{item.label}: teacher {name}", store, fill))
    return found


def fill_speech_stores(
    stores: Sequence[SpeechStore],
    folders: Sequence[Path],
    *,
    device: str = "auto",
    shard_mib: float = 64,
    num_workers: int = 1,
) -> None:
    """Store the features of all recordings of some data folders.

    A second call adds only missing recordings.

    Args:
        stores: Stores to fill; those without a folder are left out.
        folders: Kaldi data folders, in the form that the training reads.
        device: ``auto``, or the name of a torch device.
        shard_mib: Approximate size of one file of a store, in MiB.
        num_workers: Number of processes that compute.

    Raises:
        UserError: An option, a store or a recording is wrong.
    """
    import torch

    if num_workers < 1:
        raise UserError(f"--num_workers {num_workers}: give a number from 1")
    listed: dict[int, list[ListedRecording]] = {}  # keys are computed once

    def at(rate: int) -> Iterator[Recording]:
        if rate not in listed:
            listed[rate] = [one for item in folders for one in data_folder(item, rate)]
        return read_ahead(listed[rate])

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    recordings = Recordings(
        at, torch.device(device), int(shard_mib * 2**20), num_workers
    )
    for store in stores:
        if store.folder:
            store.fill(store.folder, recordings)
