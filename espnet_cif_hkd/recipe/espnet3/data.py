"""Data of a recipe of ESPnet 3: the Kaldi folders that ``local/data.sh`` writes."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from espnet3.components.data.base_dataset import BaseDataset
from espnet3.components.data.dataset_builder import DatasetBuilder
from espnet3.contract import Field

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.audio import read_utterance, resample
from espnet_cif_hkd.io.tables import byte_order, first_few, read_table, read_text

TABLES = ("wav.scp", "text")
_FIX = "run the stage create_dataset"


class KaldiDataset(BaseDataset):
    """The utterances of a Kaldi folder with ``wav.scp`` and ``text``, sorted by name.

    A sample has ``utt_id``, ``speech`` as ``(S,)`` float32 in [-1, 1], and ``text``.

    Args:
        folder: The folder.
        fs: Sampling rate of the samples in Hz; other recordings are resampled.
        recipe_dir: Folder from which ``folder`` and the files in ``wav.scp`` are
            searched, by default the working directory.

    Raises:
        UserError: The folder is missing, or a recording has no transcript.
    """

    fields = (Field("speech", "audio"), Field("text", "text"), Field("utt_id", "text"))

    def __init__(
        self, folder: str | Path, fs: int, recipe_dir: str | Path = "."
    ) -> None:
        self.top = Path(recipe_dir).resolve()
        self.fs = fs
        self.entries, self.texts = read_folder(self.top / folder)
        self.names = sorted(self.entries, key=byte_order)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a sample.

        Raises:
            UserError: The recording cannot be read, or has several channels.
        """
        name = self.names[int(index)]
        entry = self.entries[name]
        if not entry.endswith("|"):
            entry = str(self.top / entry)
        sound = read_utterance(name, entry)
        samples = np.asarray(sound.samples)
        if samples.ndim != 1:
            raise UserError(
                f"{name}: {entry} has {samples.shape[1]} channels: give recordings "
                "with one, or use the recipe in egs2 with --channel mean"
            )
        if sound.rate != self.fs:
            samples = resample(samples, sound.rate, self.fs)
        samples = samples.clip(-1, 1).astype(np.float32)
        return {"speech": samples, "text": self.texts[name], "utt_id": name}


def read_folder(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the entries of ``wav.scp`` and the texts of a Kaldi folder.

    Raises:
        UserError: A table is missing or empty, the folder has ``segments``, or an
            utterance lacks its text or its recording.
    """
    if (folder / "segments").is_file():
        raise UserError(
            f"{folder / 'segments'}: recipes of egs3 read one recording for each "
            "utterance; use the recipe in egs2, or its dump/raw as data_dir"
        )
    entries = dict(read_table(folder / "wav.scp", _FIX))
    texts = read_text(folder / "text", _FIX)
    if not entries:
        raise UserError(f"{folder / 'wav.scp'} lists no recording: {_FIX}")
    for what, lacking, table in (
        ("transcript", set(entries) - set(texts), "text"),
        ("recording", set(texts) - set(entries), "wav.scp"),
    ):
        if lacking:
            names = first_few(sorted(lacking, key=byte_order))
            raise UserError(
                f"{folder / table} has no {what} of {names}: add the lines, or take "
                "the utterances out of the other file"
            )
    return entries, texts


class LocalData(DatasetBuilder):
    """Runs ``local/data.sh``, as stage 1 of a recipe in ``egs2`` does.

    The arguments are those of ``create_dataset`` in the training configuration:
    ``recipe_dir``; ``sets``, the folders that the script writes; and ``options``, the
    words of its command line.
    """

    def is_source_prepared(
        self, recipe_dir: str, sets: Sequence[str], **_: Any
    ) -> bool:
        """Whether all tables exist."""
        return all(
            Path(recipe_dir, name, table).is_file() for name in sets for table in TABLES
        )

    def prepare_source(
        self, recipe_dir: str, options: Sequence[Any] = (), **_: Any
    ) -> None:
        """Run the script.

        Raises:
            UserError: It failed; its messages are above.
        """
        words = ["bash", "local/data.sh", *map(str, options)]
        environment = {**os.environ, "PYTHON": sys.executable}
        done = subprocess.run(words, cwd=recipe_dir, env=environment, check=False)
        if done.returncode:
            raise UserError(
                f"{' '.join(words)} failed with exit status {done.returncode}: see its "
                "messages above"
            )

    def is_built(self, **_: Any) -> bool:
        """False: :meth:`build` only checks, every time."""
        return False

    def build(self, recipe_dir: str, sets: Sequence[str], **_: Any) -> None:
        """Check the tables.

        Raises:
            UserError: See :func:`read_folder`; or a training text is empty.
        """
        for number, name in enumerate(sets):
            _, texts = read_folder(Path(recipe_dir, name))
            empty = [key for key, words in texts.items() if not words]
            if empty and number < 2:
                raise UserError(
                    f"{Path(recipe_dir, name, 'text')}: the transcript of "
                    f"{first_few(empty)} is empty: fill it in, or remove the utterances"
                )
