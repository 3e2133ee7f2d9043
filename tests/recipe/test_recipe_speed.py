"""``--speed_perturb_factors`` needs no other option."""

from pathlib import Path

import pytest
import tiny_recipe

from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe.cli import main


@pytest.mark.slow
@pytest.mark.parametrize(
    ("units", "factors"), [("char", "0.9 1.0 1.1"), ("word", "1.1"), ("bpe", "0.9 1.0")]
)
def test_stages_1_to_5_need_no_other_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, units: str, factors: str
) -> None:
    tiny_recipe.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = tiny_recipe.options(
        speed_perturb_factors=factors, stop_stage="5", token_type=units, nbpe="8"
    )
    assert main(words) == 0
    copies = len(factors.split())
    assert len(read_table("dump/raw/train_sp/text")) == 8 * copies
    # The sentences of the corpus, each once.
    assert (
        Path("dump/raw/lm_train.txt").read_text()
        == Path("source/train/text").read_text()
    )
    (tokens,) = Path("data").glob("token_list/*/tokens.txt")
    assert tokens.read_text().splitlines()[0] == "<blank>"
