"""A checkpoint names the version of this package that trained it."""

import pytest
import torch
from tiny_model import tiny_model

from espnet_cif_hkd import __version__
from espnet_cif_hkd.models import checkpoint
from espnet_cif_hkd.models.checkpoint import VERSION_KEY, made_by


def of_version(*parts: float) -> dict[str, torch.Tensor]:
    return {**tiny_model().state_dict(), VERSION_KEY: torch.tensor(parts)}


def test_every_checkpoint_names_this_version() -> None:
    assert made_by(tiny_model().state_dict()) == __version__


def test_an_average_names_the_version_of_its_parts() -> None:
    states = [of_version(1, 12, 3)] * 7
    mean = {VERSION_KEY: sum(state[VERSION_KEY] for state in states) / 7}
    assert made_by(mean) == "1.12.3"


def test_an_average_over_versions_names_none() -> None:
    assert made_by({VERSION_KEY: torch.tensor([0.0, 1.5, 0.0])}) is None


def test_a_checkpoint_from_before_the_entry_is_loaded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = tiny_model().state_dict()
    del state[VERSION_KEY]
    assert made_by(state) is None
    model = tiny_model()
    model.load_state_dict(state)
    assert made_by(model.state_dict()) == __version__
    assert "was trained with" not in caplog.text


@pytest.mark.parametrize(
    ("theirs", "ours", "warned"),
    [
        ((0, 1, 0), "0.1.0", False),
        ((0, 1, 7), "0.1.0", False),
        ((0, 2, 0), "0.1.0", True),
        ((0, 1, 0), "1.0.0", True),
        ((1, 0, 0), "1.4.2", False),
        ((2, 0, 0), "1.4.2", True),
    ],
)
def test_a_version_that_may_differ_is_reported(
    theirs: tuple[float, ...],
    ours: str,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(checkpoint, "__version__", ours)
    model, state = tiny_model(), of_version(*theirs)
    model.load_state_dict(state)
    name = ".".join(map(str, theirs))
    reported = f"trained with espnet-cif-hkd {name}, and this is {ours}" in caplog.text
    assert reported == warned
    # What this version trains on and saves is this version's.
    assert made_by(model.state_dict()) == ours
    assert state[VERSION_KEY].tolist() == list(theirs)
