"""The file beside a model."""

import json
from pathlib import Path

import pytest

from espnet_cif_hkd import UserError
from espnet_cif_hkd.inference.calibration import (
    Calibration,
    calibration_file,
    read_calibration,
    write_calibration,
)
from espnet_cif_hkd.inference.spans import Timing
from espnet_cif_hkd.io.digest import sha256


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "9epoch.pth"
    path.write_bytes(b"parameters")
    return path


@pytest.fixture
def calibration(model: Path) -> Calibration:
    weights, gaps = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (1.0, 2.0, 3.0, 4.0, 5.0)
    timing = Timing(-0.01, 0.2)
    return Calibration(sha256(model), timing, weights, gaps, 1.5, {"data": "dev"})


def test_it_is_read_again(model: Path, calibration: Calibration) -> None:
    assert read_calibration(model) == Calibration()
    assert write_calibration(model, calibration) == calibration_file(model)
    assert read_calibration(model) == calibration
    assert [path.name for path in model.parent.iterdir()].count("calibration.json") == 1


def test_that_of_another_model_is_refused(
    model: Path, calibration: Calibration
) -> None:
    write_calibration(model, calibration)
    model.write_bytes(b"other parameters")
    with pytest.raises(
        UserError, match=r"is of another model than .*calibrate"
    ) as found:
        read_calibration(model)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: "{",
        lambda found: "[]",
        lambda found: json.dumps({**found, "weights": [1.0]}),
        lambda found: json.dumps({**found, "weights": ["x"] * 6}),
        lambda found: json.dumps({**found, "timing": {"lead": 1.0, "shift": 0.1}}),
        lambda found: json.dumps({**found, "timing": None}),
        lambda found: json.dumps({**found, "gaps": [1.0, 2.0]}),
        lambda found: json.dumps({**found, "limit": None}),
        lambda found: json.dumps({k: v for k, v in found.items() if k != "model"}),
    ],
)
def test_a_damaged_file_is_named(
    model: Path, calibration: Calibration, change: object
) -> None:
    path = write_calibration(model, calibration)
    assert callable(change)
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(UserError, match=r"calibration.json is no calibration"):
        read_calibration(model)


def test_a_file_without_gaps_has_no_limit_for_them(
    model: Path, calibration: Calibration
) -> None:
    """Version 0.3.3 wrote a limit of another number."""
    path = write_calibration(model, calibration)
    found = json.loads(path.read_text())
    del found["gaps"]
    path.write_text(json.dumps(found))
    known = read_calibration(model)
    assert (known.gaps, known.limit) == (None, 0.0)
    assert known.weights == calibration.weights
