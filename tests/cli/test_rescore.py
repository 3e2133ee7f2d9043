"""espnet-cif rescore: what it writes, reports, keeps and refuses."""

import json
from pathlib import Path

import pytest
from error_line import error_line
from nbest_files import write_rank, write_texts
from tiny_hf_lm import build_causal

from espnet_cif_hkd.cli.rescore import get_parser, main, run
from espnet_cif_hkd.inference.nbest import choose, read_nbest
from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.teachers.lm.sentences import SentenceScorer

REFERENCES = {"a": "THE SEAT", "b": "CHEESE", "c": "A CAT SAT"}
LISTS = {
    "a": [("THE SEA", -3.0), ("THE SEAT", -3.5), ("THE HEAT", -3.6)],
    "b": [("CHEESE", -1.0)],
    "c": [("A CAT", -2.0), ("", -2.5), ("A CAT SAT", -4.0)],
}


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return build_causal(tmp_path_factory.mktemp("lm") / "causal")


@pytest.fixture
def data(tmp_path):
    """Two decoded sets, their transcripts, and a folder for the result."""
    for name in ("dev", "test"):
        for rank in range(3):
            rows = [
                (key, *found[rank]) for key, found in LISTS.items() if rank < len(found)
            ]
            write_rank(tmp_path / name, 1, rank + 1, rows)
        write_texts(tmp_path / name)
    lines = (f"{key} {text}\n" for key, text in REFERENCES.items())
    (tmp_path / "text").write_text("".join(lines))
    return tmp_path


def words(data, lm, *more):
    out = ["-o", data / "out/test"]
    return [str(one) for one in (data / "test", "--lm", lm, *out, *more)]


def texts(folder):
    return dict(read_table(folder / "text"))


def test_the_best_totals_are_written_in_espnets_files(data, lm, capfd):
    run(get_parser().parse_args(words(data, lm, "--weight", 0.5, "--bonus", 1.0)))
    nbest = read_nbest(data / "test")
    scorer = SentenceScorer(lm, case="lower")
    all_texts = [one.text for some in nbest.values() for one in some]
    others = dict(zip(all_texts, scorer(all_texts)))
    expected = choose(nbest, others, 0.5, 1.0)
    out = data / "out/test"
    assert texts(out) == {key: one.text for key, (one, _) in expected.items()}
    for name in ("token", "token_int"):
        assert dict(read_table(out / name)) == {
            key: getattr(one, name) for key, (one, _) in expected.items()
        }
    scores = {key: float(value) for key, value in read_table(out / "score").items()}
    totals = {key: total for key, (_, total) in expected.items()}
    assert scores == pytest.approx(totals, abs=1e-4)
    facts = json.loads((out / "rescore.json").read_text())
    assert facts == {"lm": Path(lm).name, "weight": 0.5, "bonus": 1.0}


def test_a_fit_has_no_more_errors_than_the_search(data, lm, capfd):
    fit = ("--fit", data / "dev", "--fit_text", data / "text", "--text", data / "text")
    run(get_parser().parse_args(words(data, lm, *fit)))
    printed = capfd.readouterr().out
    # 2 of 6 words are wrong; the lists have all of them.
    rates = [line for line in printed.splitlines() if "word errors 33.33 -> " in line]
    assert len(rates) == 2 and "(the best of each list: 0.00 %)" in rates[0]
    facts = json.loads((data / "out/test/rescore.json").read_text())
    assert facts["weight"] > 0 or facts["bonus"] > 0
    # Longer texts are better here, so a bonus alone removes the errors.
    assert texts(data / "out/test") == REFERENCES


def test_a_rerun_scores_nothing_again(data, lm, monkeypatch, tmp_path):
    run(get_parser().parse_args(words(data, lm, "--weight", 0.5)))
    kept = (data / "out/test/lm_scores.json").read_text()
    before = texts(data / "out/test")
    scored = []
    real = SentenceScorer.__call__

    def recorded(self, some):
        scored.extend(some)
        return real(self, some)

    monkeypatch.setattr(SentenceScorer, "__call__", recorded)
    monkeypatch.setattr(SentenceScorer, "open", None)
    run(get_parser().parse_args(words(data, lm, "--weight", 0.25)))
    run(get_parser().parse_args(words(data, lm, "--weight", 0.5)))
    monkeypatch.undo()
    monkeypatch.setattr(SentenceScorer, "__call__", recorded)
    assert scored == [] and texts(data / "out/test") == before
    assert (data / "out/test/lm_scores.json").read_text() == kept
    other = build_causal(tmp_path / "other", positions=40)
    run(get_parser().parse_args(words(data, other, "--weight", 0.5)))
    assert sorted(scored) == sorted(
        {text for some in LISTS.values() for text, _ in some}
    )


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"scorer": 1}'])
def test_damaged_scores_are_made_again(data, lm, content):
    path = data / "out/test/lm_scores.json"
    run(get_parser().parse_args(words(data, lm, "--weight", 0.5)))
    kept = path.read_text()
    path.write_text(content.replace("1", json.dumps(json.loads(kept)["scorer"])))
    run(get_parser().parse_args(words(data, lm, "--weight", 0.5)))
    assert path.read_text() == kept


def test_an_interrupted_decoding_is_refused(data, lm, capsys):
    (data / "dev/.incomplete-12").touch()
    fit = ("--fit", data / "dev", "--fit_text", data / "text")
    assert "stage 12 was interrupted" in error_line(
        main, capsys, *words(data, lm, *fit)
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "give either --weight, or --fit and --fit_text"),
        (("--weight", "1", "--fit", "dev"), "give either --weight, or --fit"),
        (("--fit", "dev"), "--fit and --fit_text belong together"),
        (("--fit_text", "text", "--weight", "1"), "--fit and --fit_text belong"),
        (("--fit", "dev", "--fit_text", "text", "--bonus", "1"), "--bonus is fitted"),
        (("--weight", "1", "-o", "test"), "test: holds the result of a decoding"),
        (("--weight", "1", "-o", "dev"), "dev: holds the result of a decoding"),
        (("--weight", "nan"), "weight is nan; it must be a finite number"),
        (("--weight", "1", "--text", "few"), r"few lacks 2 of 3 utterances (b, c)"),
        (("--weight", "1", "-o", "text/out"), "text is not a folder"),
    ],
)
def test_refused_before_the_lm_is_opened(data, capsys, monkeypatch, more, message):
    monkeypatch.chdir(data)
    Path("few").write_text("a THE SEAT\n")
    assert message in error_line(main, capsys, *words(data, "no such LM"), *more)


def test_an_lm_that_is_not_there(data, capsys):
    line = error_line(main, capsys, *words(data, data / "none"), "--weight", 1)
    assert "none: this folder does not exist" in line
