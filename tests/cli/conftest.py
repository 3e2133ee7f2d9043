"""A recogniser without a model."""

import sys

import fake_recognizer
import pytest


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(sys.modules, fake_recognizer.MODULE, fake_recognizer.module())
    return sys.modules[fake_recognizer.MODULE].Recognizer
