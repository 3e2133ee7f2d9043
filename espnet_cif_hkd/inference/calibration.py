"""What was fitted to a model on its development set, in a file beside the model."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.inference.confidence import FEATURES, LIMIT
from espnet_cif_hkd.inference.spans import Timing
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.io.digest import sha256

NAME = "calibration.json"
_AGAIN = (
    "run python3 -m espnet_cif_hkd.cli.calibrate for this model, or remove the file"
)


@dataclass(frozen=True)
class Calibration:
    """Numbers that turn a model's peaks into times, and its scores into confidences.

    Attributes:
        model: SHA-256 of the model file; empty: of no model.
        timing: Place of the peak in a token.
        weights: Constant and weights of the features of
            :mod:`espnet_cif_hkd.inference.confidence`; None: not fitted.
        limit: Surplus of alpha from which on a warning is given.
        report: Figures of the fit, for people.
    """

    model: str = ""
    timing: Timing = field(default_factory=Timing)
    weights: tuple[float, ...] | None = None
    limit: float = LIMIT
    report: dict[str, Any] = field(default_factory=dict)


def calibration_file(model_file: str | Path) -> Path:
    """Path of the calibration of a model file."""
    return Path(model_file).with_name(NAME)


def read_calibration(model_file: str | Path) -> Calibration:
    """Return the calibration beside a model; the default without such a file.

    Raises:
        UserError: The file is damaged or of another model.
    """
    path = calibration_file(model_file)
    if not path.is_file():
        return Calibration()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        weights = found["weights"]
        if weights is not None:
            weights = tuple(map(float, weights))
            if len(weights) != len(FEATURES) + 1:
                raise ValueError(f"{len(weights)} weights")
        timing = {name: float(value) for name, value in found["timing"].items()}
        known = Calibration(
            str(found["model"]),
            Timing(**timing),
            weights,
            float(found["limit"]),
            dict(found["report"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = one_line(error)
        raise UserError(f"{path} is no calibration ({reason}): {_AGAIN}") from error
    if known.model != sha256(model_file):
        raise UserError(f"{path} is of another model than {model_file}: {_AGAIN}")
    return known


def write_calibration(model_file: str | Path, calibration: Calibration) -> Path:
    """Write the calibration beside a model; return its path.

    Raises:
        OSError: The file cannot be written.
    """
    path = calibration_file(model_file)
    write_text(path, json.dumps(asdict(calibration), indent=1) + "\n")
    return path
