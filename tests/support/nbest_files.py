"""Lists of hypotheses as asr_inference writes them."""

from collections.abc import Sequence
from pathlib import Path


def write_rank(
    folder: Path, job: int, rank: int, rows: Sequence[tuple[str, str, float]]
) -> Path:
    """Write the hypotheses of a rank: utterance, text and score."""
    place = folder / f"logdir/output.{job}/{rank}best_recog"
    place.mkdir(parents=True)
    columns = {
        "text": [f"{key} {text}" for key, text, _ in rows],
        "token": [f"{key} {' '.join(text)}" for key, text, _ in rows],
        "token_int": [
            " ".join([key, *(str(ord(c)) for c in text)]) for key, text, _ in rows
        ],
        "score": [f"{key} tensor({score})" for key, _, score in rows],
    }
    for name, lines in columns.items():
        (place / name).write_text("".join(f"{line}\n" for line in lines))
    return place


def write_texts(folder: Path) -> None:
    """Write the first hypotheses of all jobs into ``text``, as stage 12 does."""
    parts = sorted(folder.glob("logdir/output.*/1best_recog/text"))
    (folder / "text").write_text("".join(part.read_text() for part in parts))
