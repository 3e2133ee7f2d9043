"""What was fitted to a model on its development set, in a file beside the model."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.inference import confidence, gaps
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
        gaps: The same of :mod:`espnet_cif_hkd.inference.gaps`.
        limit: Score of a gap from which on a warning is given, in log-odds.
        report: Figures of the fit, for people, and its ``search``.
    """

    model: str = ""
    timing: Timing = field(default_factory=Timing)
    weights: tuple[float, ...] | None = None
    gaps: tuple[float, ...] | None = None
    limit: float = 0.0
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
        # Files of version 0.3 have no weights of gaps; their limit is another one.
        of_gaps = _weights(found.get("gaps"), gaps.FEATURES)
        timing = {name: float(value) for name, value in found["timing"].items()}
        known = Calibration(
            str(found["model"]),
            Timing(**timing),
            _weights(found["weights"], confidence.FEATURES),
            of_gaps,
            0.0 if of_gaps is None else float(found["limit"]),
            dict(found["report"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = one_line(error)
        raise UserError(f"{path} is no calibration ({reason}): {_AGAIN}") from error
    if known.model != sha256(model_file):
        raise UserError(f"{path} is of another model than {model_file}: {_AGAIN}")
    return known


def _weights(found: Any, features: Sequence[str]) -> tuple[float, ...] | None:
    if found is None:
        return None
    weights = tuple(map(float, found))
    if len(weights) != len(features) + 1:
        raise ValueError(f"{len(weights)} weights")
    return weights


def warn_of_search(calibration: Calibration, search: Mapping[str, Any]) -> None:
    """Log a warning if confidences were fitted to another kind of search.

    Args:
        calibration: Of the model.
        search: As ``Recognizer.search``.
    """
    fitted = calibration.report.get("search")
    if calibration.weights is None or not isinstance(fitted, dict):
        return
    if _kind(fitted) != _kind(search):
        logging.warning(
            "%s was fitted to %s, this recogniser uses %s: confidences of recognised "
            "text are less exact; run espnet-cif calibrate with the search in use",
            *(NAME, _kind(fitted), _kind(search)),
        )


def _kind(search: Mapping[str, Any]) -> str:
    if search.get("one_pass"):
        again = " with fallback" if search.get("fallback_below") else ""
        return f"a one-pass search{again}"
    if search.get("greedy", True):
        return "a greedy search"
    # Version 0.3 wrote the options of the language model only.
    lm = search.get("lm", "lm_train_config" in search)
    return "a beam search with a language model" if lm else "a beam search"


def write_calibration(model_file: str | Path, calibration: Calibration) -> Path:
    """Write the calibration beside a model; return its path.

    Raises:
        OSError: The file cannot be written.
    """
    path = calibration_file(model_file)
    write_text(path, json.dumps(asdict(calibration), indent=1) + "\n")
    return path
