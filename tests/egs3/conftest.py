"""Tests of ESPnet 3, which only ESPnet 202611 has."""

import importlib.util
from pathlib import Path

import pytest

REASON = "ESPnet 3 is part of ESPnet 202611 (Python 3.12): its recipes are not tested"
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need ESPnet 3 where it is not installed."""
    if importlib.util.find_spec("espnet3") is not None:
        return
    for item in items:
        needs = item.get_closest_marker("espnet3") is not None
        if needs and item.path.parent == HERE:
            item.add_marker(pytest.mark.skip(REASON))
