"""Errors of starts and ends on a case computed by hand."""

import boundaries
import pytest


def test_both_definitions_of_the_average_shift() -> None:
    found = boundaries.Boundaries()
    found.add((0.11, 0.30), (0.10, 0.33))
    found.add((0.40, 0.70), (0.46, 0.50))
    figures = found.figures()
    assert figures["mean"] == pytest.approx((10 + 30 + 60 + 200) / 4)
    assert figures["aas_funasr"] == pytest.approx((40 + 260) / 2)
    assert figures["starts"] == pytest.approx(35)
    assert figures["bias"] == pytest.approx((10 - 30 - 60 + 200) / 4)
    assert figures["bias_starts"] == pytest.approx(-25)
    assert figures["bias_ends"] == pytest.approx(85)
    assert figures["within_25"] == figures["within_50"] - 25 == 25
    assert (
        len(found.row()) == len(boundaries.HEAD) == len(boundaries.Boundaries().row())
    )


def test_matched_units_are_in_order() -> None:
    assert boundaries.matched("abxd", "abcd") == [(0, 0), (1, 1), (3, 3)]
    assert boundaries.matched("", "a") == []
