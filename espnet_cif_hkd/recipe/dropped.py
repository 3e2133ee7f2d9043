"""Training utterances that one experiment leaves out (``--drop_too_long true``).

All experiments share the dump and the statistics of stage 10, so dropping does not
change them. The experiment folder gets the list of its dropped utterances, and a folder
``kept`` with the tables for its training.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from espnet_cif_hkd.io.tables import read_table, write_table
from espnet_cif_hkd.recipe.context import Run

PARTS = ("train", "valid")
_STATISTICS = "feats_stats.npz"


def data_folder(run: Run, part: str) -> Path:
    """Return the dump folder of ``part``, which is ``train`` or ``valid``."""
    return run.paths.data_feats / (
        run.paths.train_set if part == "train" else run.options.valid_set
    )


def record(run: Run, part: str, reasons: Mapping[str, str]) -> Path:
    """Write the list of utterances that are too long for this experiment.

    Args:
        run: the run.
        part: ``train`` or ``valid``.
        reasons: reasons by utterance; if empty, an earlier list is deleted.

    Returns:
        Path of the list.
    """
    path = run.paths.asr_exp / f"dropped_too_long.{part}"
    if reasons:
        write_table(path, reasons)
    else:
        path.unlink(missing_ok=True)
    return path


def listings(run: Run) -> list[Path]:
    """Return the lists of dropped utterances; empty if nothing is dropped."""
    if not run.options.drop_too_long:
        return []
    paths = (run.paths.asr_exp / f"dropped_too_long.{part}" for part in PARTS)
    return [path for path in paths if path.is_file()]


def kept_folder(run: Run) -> Path:
    """Return the folder of the tables without the dropped utterances."""
    return run.paths.asr_exp / "kept"


def sources(run: Run, part: str) -> tuple[Path, Path]:
    """Return the folders of data and shapes of ``part`` for stage 11."""
    if listings(run):
        return kept_folder(run) / part, kept_folder(run) / part
    return data_folder(run, part), run.paths.asr_stats_dir / part


def write_kept(run: Run) -> None:
    """Write the tables of :func:`kept_folder`, if the experiment drops utterances."""
    dropped = {path.suffix[1:]: read_table(path) for path in listings(run)}
    for part in PARTS if dropped else ():
        data, shapes = data_folder(run, part), run.paths.asr_stats_dir / part
        shape_files = ("speech_shape", f"text_shape.{run.options.token_type}")
        for path in (
            *(data / "wav.scp", data / "text"),
            *(shapes / name for name in shape_files),
        ):
            table = read_table(path)
            for utterance in dropped.get(part, ()):
                table.pop(utterance, None)
            write_table(kept_folder(run) / part / path.name, table)
        # asr.sh expects them in the folder of the shapes.
        if (shapes / _STATISTICS).is_file():
            shutil.copyfile(shapes / _STATISTICS, kept_folder(run) / part / _STATISTICS)
