"""Recordings of a data folder and their transcripts, for commands that fit."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.evidence import Floats
from espnet_cif_hkd.io.audio import read_utterance, resample, select_channel
from espnet_cif_hkd.io.tables import read_table, read_text

if TYPE_CHECKING:
    from espnet_cif_hkd.inference.recognizer import Recognizer


def read_spoken(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return recordings and their transcripts, if there are any.

    Args:
        folder: Has ``wav.scp``, and ``text`` if there are transcripts. Recordings
            without a transcript are left out then.

    Raises:
        UserError: A file is missing or damaged, or both have no utterance in common.
    """
    if (folder / "segments").is_file():
        raise UserError(
            f"{folder} has segments: give the folder that stage 4 makes of it, in "
            "dump/raw"
        )
    recordings = read_table(folder / "wav.scp", "give a folder such as dump/raw/dev")
    if not (folder / "text").exists():
        return recordings, {}
    texts = read_text(folder / "text")
    known = {key: entry for key, entry in recordings.items() if key in texts}
    if not known:
        raise UserError(f"{folder}: no utterance has both a recording and a text")
    return known, texts


def samples_of(recognizer: "Recognizer", key: str, entry: str) -> Floats:
    """Read a recording at the rate of the model, ``(S,)`` float32."""
    sound = select_channel(read_utterance(key, entry), "0", key)
    wave = resample(sound.samples, sound.rate, recognizer.sampling_rate)
    return wave.astype(np.float32)
