"""Lines of hypotheses are those of ESPnet's asr.sh, blanks at their end included."""

from pathlib import Path

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe.stages.decode import _collect_outputs

# As ESPnet writes them: nothing was found for a, the hypothesis of b ends in a lone ▁.
TEXT = {"a": "a \n", "b": "b ab \n", "b-1": "b-1  c  d\n", "c": "c \u3000\n"}
TOKENS = {"a": "a \n", "b": "b ▁ab ▁\n", "b-1": "b-1 ▁ ▁c ▁ ▁d\n", "c": "c \u3000\n"}


def outputs(folder: Path, *jobs: str) -> list[Path]:
    """What jobs that decode these utterances leave."""
    made = []
    for number, job in enumerate(jobs, 1):
        target = folder / f"output.{number}" / "1best_recog"
        target.mkdir(parents=True)
        for name in ("token", "token_int", "score", "text"):
            table = TEXT if name == "text" else TOKENS
            lines = (table[key] for key in job.split())
            (target / name).write_text("".join(lines), encoding="utf-8")
        made.append(target.parent)
    return made


def test_joined_line_by_line(tmp_path: Path) -> None:
    _collect_outputs(outputs(tmp_path, "b-1 a", "c b"), tmp_path, list(TEXT))
    assert (tmp_path / "text").read_text() == "".join(TEXT.values())
    assert (tmp_path / "token").read_text() == "".join(TOKENS.values())


def test_a_missing_utterance_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"token would lack 1 utterances \(b\)"):
        _collect_outputs(outputs(tmp_path, "a c"), tmp_path, ["a", "b", "c"])
