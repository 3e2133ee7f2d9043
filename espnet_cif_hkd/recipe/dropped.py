"""Training utterances that one experiment leaves out (``--drop_too_long true``).

The dump and the statistics of stage 10 serve every experiment, so a drop changes
neither. The experiment folder gets the list of its dropped utterances, and in ``kept``
the tables that its training reads instead.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from espnet_cif_hkd.io.tables import read_table, write_table
from espnet_cif_hkd.recipe.context import Run

PARTS = ("train", "valid")
_STATISTICS = "feats_stats.npz"


def data_folder(run: Run, part: str) -> Path:
    """The dump folder of ``part``, which is ``train`` or ``valid``."""
    return run.paths.data_feats / (
        run.paths.train_set if part == "train" else run.options.valid_set
    )


def record(run: Run, part: str, reasons: Mapping[str, str]) -> Path:
    """Write the list of what is too long for this experiment; return its path.

    Args:
        run: the run.
        part: ``train`` or ``valid``.
        reasons: by utterance; without any, an earlier list is deleted.
    """
    path = run.paths.asr_exp / f"dropped_too_long.{part}"
    if reasons:
        write_table(path, reasons)
    else:
        path.unlink(missing_ok=True)
    return path


def listings(run: Run) -> list[Path]:
    """The lists of dropped utterances; none where the experiment drops nothing."""
    if not run.options.drop_too_long:
        return []
    paths = (run.paths.asr_exp / f"dropped_too_long.{part}" for part in PARTS)
    return [path for path in paths if path.is_file()]


def kept_folder(run: Run) -> Path:
    """Where the tables without the dropped utterances are."""
    return run.paths.asr_exp / "kept"


def sources(run: Run, part: str) -> tuple[Path, Path]:
    """The folders that stage 11 reads data and shapes of ``part`` from."""
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
        # asr.sh looks for them beside the shapes.
        if (shapes / _STATISTICS).is_file():
            shutil.copyfile(shapes / _STATISTICS, kept_folder(run) / part / _STATISTICS)
