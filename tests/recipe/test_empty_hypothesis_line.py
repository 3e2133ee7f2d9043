"""An empty hypothesis is written as ESPnet's asr.sh writes it.

Its line ended at the utterance's name, without ESPnet's space behind it, so the files
of the two engines differed for the same hypotheses.
"""

from pathlib import Path

from espnet_cif_hkd.recipe.stages.decode import _collect_outputs


def test_a_space_follows_the_name(tmp_path: Path) -> None:
    job = tmp_path / "output.1"
    (job / "1best_recog").mkdir(parents=True)
    for name in ("token", "token_int", "score", "text"):
        (job / "1best_recog" / name).write_text("b ab c\na \n")
    _collect_outputs([job], tmp_path, ["a", "b"])
    assert (tmp_path / "text").read_text() == "a \nb ab c\n"
