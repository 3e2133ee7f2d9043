"""ESPnet's own unmodified asr.sh against this package's engine.

    ESPNET_ROOT=/path/to/espnet python3 -m pytest \\
        tests/recipe/test_stock_asr_sh.py [-k CASE]

needs an ESPnet checkout whose Python is this one, with sclite; CASE is one of
``stock_cases.CASES``, each takes several minutes, nearly all of it ESPnet's start-up.
Without ESPNET_ROOT conftest.py says after the last test that none of this was run.

Four runs of a recipe through its run.sh, with the same options: asr.sh alone
(``stock``), the engine alone (``engine``), and started by the one and finished by the
other.
"""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from stock_cases import CASES, run_stages

from espnet_cif_hkd.io.tables import read_table

EXP = Path("exp/asr_tiny")
DECODED = EXP / "decoded"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.espnet_checkout,
    pytest.mark.timeout(3600),
]


def _run(
    folder: Path, options: list[str], checkout: bool, first: int, last: int
) -> None:
    seconds = run_stages(folder, options, checkout, first, last)
    engine = "asr.sh" if checkout else "engine"
    print(f"{folder}: stages {first} to {last}, {engine}: {seconds:.0f} s")


def _copy(source: Path, name: str) -> Path:
    target = source.with_name(name)
    shutil.copytree(source, target, symlinks=True)
    return target


@pytest.fixture(scope="module", params=list(CASES))
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the four runs of one recipe."""
    top = tmp_path_factory.mktemp(request.param)
    new = top / "new"
    options = CASES[request.param](new)

    stock = _copy(new, "stock")
    _run(stock, options, True, 1, 14)
    other = _copy(stock, "stock_then_engine")
    shutil.rmtree(other / DECODED)
    (other / EXP / "RESULTS.md").unlink()
    for archive in (other / EXP).glob("*.zip"):
        archive.unlink()
    _run(other, options, False, 12, 14)

    engine = _copy(new, "engine")
    _run(engine, options, False, 1, 10)
    other = _copy(engine, "engine_then_stock")
    _run(engine, options, False, 11, 14)
    _run(other, options, True, 11, 14)
    return top


def _is_inner(path: Path) -> bool:
    """Whether asr.sh keeps it besides: a copy, or what one of its jobs wrote."""
    return path.parent.name.startswith((".backup", "format."))


def _tables(folder: Path) -> dict[str, str]:
    names = ("text", "utt2spk", "spk2utt", "utt2num_samples", "feats_type")
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.name in names and not _is_inner(path)
    }


def test_data_and_token_list_are_the_same(runs: Path) -> None:
    stock, engine = runs / "stock", runs / "engine"
    for name in ("data", "dump/raw"):
        tables = _tables(stock / name)
        assert len(tables) > 8
        assert {key: tables[key] for key in tables} == _tables(engine / name)
    (tokens,) = (stock / "data").rglob("tokens.txt")
    same = engine / tokens.relative_to(stock)
    assert tokens.read_bytes() == same.read_bytes()
    for scp in (stock / "dump/raw").rglob("wav.scp"):
        if _is_inner(scp):
            continue
        ours = read_table(engine / scp.relative_to(stock))
        theirs = read_table(scp)
        assert list(ours) == list(theirs) and ours
        for utterance, path in theirs.items():
            left, rate = soundfile.read(stock / path, dtype="int16")
            right, same_rate = soundfile.read(engine / ours[utterance], dtype="int16")
            assert rate == same_rate and np.array_equal(left, right)


def test_the_statistics_are_the_same(runs: Path) -> None:
    (stats,) = (runs / "stock/exp").glob("asr_stats_*")
    ours = runs / "engine/exp" / stats.name
    shapes = sorted(path.relative_to(stats) for path in stats.glob("*/*_shape*"))
    assert len(shapes) == 6
    assert shapes == sorted(path.relative_to(ours) for path in ours.glob("*/*_shape*"))
    for shape in shapes:
        assert (stats / shape).read_text() == (ours / shape).read_text()


def _model(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = (p for p in (folder / EXP).glob("*.ave.pth"))
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return state


@pytest.mark.parametrize("name", ["engine", "engine_then_stock"])
def test_the_trained_model_is_the_same(runs: Path, name: str) -> None:
    stock, other = _model(runs / "stock"), _model(runs / name)
    assert list(stock) == list(other)
    for key in stock:
        torch.testing.assert_close(other[key], stock[key], rtol=1e-5, atol=1e-6)


def _rows(folder: Path) -> list[str]:
    """The rows of scores in RESULTS.md."""
    lines = (folder / EXP / "RESULTS.md").read_text().splitlines()
    return [line for line in lines if line.startswith("|decoded")]


@pytest.mark.parametrize("name", ["stock_then_engine", "engine", "engine_then_stock"])
def test_decoded_text_and_scores_are_the_same(runs: Path, name: str) -> None:
    stock, other = runs / "stock", runs / name
    (folder,) = (stock / DECODED).glob("test*")
    same = other / folder.relative_to(stock)
    for table in ("text", "token", "token_int"):
        assert (same / table).read_text() == (folder / table).read_text()
    texts = read_table(folder / "text")
    assert len(texts) >= 2 and any(texts.values())
    left, right = read_table(folder / "score"), read_table(same / "score")
    assert list(left) == list(right)
    for utterance, score in left.items():
        numbers = [
            float(s.removeprefix("tensor(").rstrip(")"))
            for s in (score, right[utterance])
        ]
        assert numbers[1] == pytest.approx(numbers[0], abs=1e-4)
    rows = _rows(stock)
    assert len(rows) >= 2 and rows == _rows(other)
    for scored in folder.glob("score_*"):
        for trn in ("ref.trn", "hyp.trn"):
            ours = (same / scored.name / trn).read_text()
            assert (scored / trn).read_text() == ours


@pytest.mark.parametrize("name", ["stock_then_engine", "engine", "engine_then_stock"])
def test_the_archive_has_the_same_members(runs: Path, name: str) -> None:
    """But for the WordPieces, which asr.sh forgets; without them nobody can decode."""
    members = []
    for folder in (runs / "stock" / EXP, runs / name / EXP):
        (archive,) = folder.glob("*.zip")
        with zipfile.ZipFile(archive) as packed:
            members.append((archive.name, set(packed.namelist())))
    (stock_name, stock), (archive_name, ours) = members
    assert archive_name == stock_name
    assert stock <= ours
    wordpiece = (runs / "stock/data/wordpiece").is_dir()
    more = {path for path in ours - stock if path.startswith("data/wordpiece/")}
    assert ours - stock == more
    assert bool(more) == (wordpiece and name != "engine_then_stock")
