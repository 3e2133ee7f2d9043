"""Pictures of Chinese: which fonts are taken, and what is printed without one."""

import logging

import pytest
from matplotlib import font_manager

from espnet_cif_hkd.inference.fonts import families

NOBODY_HAS = "\U000f1234"


def test_a_font_that_has_everything_is_enough() -> None:
    assert families("DejaVu Sans", "ab ␣ é") == ["DejaVu Sans"]


def test_what_cannot_be_shown_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        families("DejaVu Sans", f"a{NOBODY_HAS}")
    assert f"has {NOBODY_HAS}: boxes" in caplog.text
    assert "fonts-noto-cjk" in caplog.text


def test_an_installed_font_steps_in(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stand-in: the mathematical font of matplotlib has what DejaVu Sans lacks."""
    symbols = font_manager.findfont("STIXGeneral")
    own = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    others = font_manager.get_font(symbols).get_charmap()
    character = chr(next(code for code in sorted(others) if code not in own))
    entry = font_manager.FontEntry(fname=symbols, name="Noto Sans CJK SC")
    monkeypatch.setattr(
        font_manager.fontManager,
        "ttflist",
        [*font_manager.fontManager.ttflist, entry],
    )
    with caplog.at_level(logging.WARNING):
        chosen = families("DejaVu Sans", f"a{character}")
    assert chosen == ["DejaVu Sans", "Noto Sans CJK SC"]
    assert caplog.text == ""
