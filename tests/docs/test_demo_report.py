"""What ``make demo`` shows at the end, from files as stages 11 to 13 leave them."""

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.figure import Alignment
from espnet_cif_hkd.recipe.stages.report import ScoredUtterance, result_text
from espnet_cif_hkd.recipe.stages.sclite import align

REFERENCES = {
    "A-1": "THE CAT SAT ON THE MAT",
    "A-2": "A DOG RAN OVER THE HILL",
    "B-1": "THE BIRD FLEW AWAY TODAY",
    "B-2": "YES",
}
HYPOTHESES = {
    "A-1": "THE CAT SAT ON A HAT",
    "A-2": "A DOG RAN OVER THE HILL",
    "B-1": "",
    "B-2": "YES",
}
LOG = (
    "[host] 2026-01-01 (trainer:343) INFO: 1epoch results: [train] cer_ctc=0.1, x=1, "
    "[valid] loss_ctc=3.1, cer_ctc=0.753, loss=2, [att_plot] time=1\n"
    "[host] 2026-01-01 (trainer:343) INFO: 2epoch results: [train] x=1, "
    "[valid] loss_ctc=2.9, cer_ctc=0.5, loss=2\n"
)


@pytest.fixture(scope="module")
def demo_report() -> ModuleType:
    """The module ``tools/demo_report.py``."""
    path = Path(__file__).parents[2] / "tools" / "demo_report.py"
    spec = importlib.util.spec_from_file_location("demo_report", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _kaldi(path: Path, table: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key} {value}\n" for key, value in table.items()))


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """An experiment as a run of the recipe leaves it, without the model."""
    folder = tmp_path / "exp" / "tag" / "test"
    _kaldi(tmp_path / "data" / "test" / "text", REFERENCES)
    _kaldi(tmp_path / "data" / "train" / "text", {"C-1": "ONE", "C-2": "TWO"})
    _kaldi(folder / "text", HYPOTHESES)
    for name, cut in (("cer", list), ("wer", str.split)):
        scored = [
            ScoredUtterance(key[0], key, align(cut(text), cut(HYPOTHESES[key])))
            for key, text in REFERENCES.items()
        ]
        (folder / f"score_{name}").mkdir()
        path = folder / f"score_{name}" / "result.txt"
        path.write_text(result_text(scored, "hyp.trn"))
    (tmp_path / "exp" / "train.log").write_text(LOG)
    (tmp_path / "exp" / "valid.acc.ave.pth").write_text("model")
    return [
        *("--exp", str(tmp_path / "exp"), "--inference_tag", "tag"),
        *("--data", str(tmp_path / "data" / "test")),
        *("--train_data", str(tmp_path / "data" / "train")),
    ]


def test_the_report_shows_rates_sentences_times_and_one_picture(
    demo_report: ModuleType,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[str] = []

    def plot(args: argparse.Namespace) -> Alignment:
        drawn.append(args.utt_id)
        tokens = [c if c != " " else "<space>" for c in HYPOTHESES[args.utt_id]]
        times = 0.1 * np.arange(1, len(tokens) + 2)  # with <eos>
        none = np.zeros(0)
        return Alignment(none, 100, none, none, times, tokens, "")

    monkeypatch.setattr(demo_report.plot_alignment, "plot", plot)
    assert demo_report.main(arguments) == 0
    shown = capsys.readouterr().out
    # 24 letters missing and 4 wrong of 22 + 23 + 24 + 3; 5 + 2 of 6 + 6 + 5 + 1 words.
    errors = align(list(REFERENCES["A-1"]), list(HYPOTHESES["A-1"])).errors + 24
    assert f"| {100 * errors / 72:5.1f} | {100 * 7 / 18:5.1f} |" in shown
    assert "    2 utt. |    4 utt." in shown
    assert "after each pass: 75 50" in shown
    # B-2 is too short to show; of the other three A-2 is best and B-1 worst.
    assert "(A-2):\n  reference  A DOG RAN OVER THE HILL\n  decoded    A DOG" in shown
    assert "(A-1):\n  reference  THE CAT SAT ON THE MAT\n  decoded    THE CAT" in shown
    assert "worst of the sentences of middle length (B-1):" in shown
    picture = tmp_path / "exp" / "images" / "cif_A-2.png"
    assert str(picture) in shown
    assert drawn == ["A-2"]
    assert (
        "   0.00 to  0.10  A\n   0.20 to  0.50  DOG\n   0.60 to  0.90  RAN\n" in shown
    )
    assert "   1.90 to  2.30  HILL\n" in shown


def test_a_missing_score_is_one_line(
    demo_report: ModuleType,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = tmp_path / "exp" / "tag" / "test" / "score_wer" / "result.txt"
    result.write_text("nothing here\n")
    with pytest.raises(UserError, match="no line Sum/Avg"):
        demo_report.error_rate(result)
    result.unlink()
    assert demo_report.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "score_wer/result.txt: no such file" in error
    assert error.count("\n") == 1
