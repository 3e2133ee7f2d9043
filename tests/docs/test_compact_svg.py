"""Small SVG files: the same texts, places and clipping as matplotlib wrote."""

import io
import re
import xml.etree.ElementTree as ET

import pytest

pytest.importorskip("matplotlib", reason="pictures need matplotlib")
pytest.importorskip("scour", reason="pictures need scour")

from compact_svg import compact
from matplotlib import rc_context
from matplotlib.figure import Figure

SVG = "{http://www.w3.org/2000/svg}"


def drawn() -> str:
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "x"}):
        figure = Figure(figsize=(4, 3))
        axes = figure.subplots()
        axes.plot([0, 1, 2], [0.12345, 3, 1], marker="o", label="a < b & “c”")
        axes.set_ylim(0.2, 2)  # the line leaves the axes: it must stay clipped
        axes.set_xticks([0.12345], ["0.12345 stays"])
        axes.text(1, 1, "turned", rotation=90)
        axes.legend()
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def texts(svg: str) -> list[tuple[str, list[float]]]:
    """Each text of a picture, with its place, shift and rotation."""
    found = []
    for element in ET.fromstring(svg).iter(f"{SVG}text"):
        turn = element.get("transform", "")
        numbers = re.findall(
            r"-?[\d.]+", "" if re.match(r"rotate\(-?0 ", turn) else turn
        )
        place = [element.get("x", "0"), element.get("y", "0"), *numbers]
        found.append(("".join(element.itertext()), [float(one) for one in place]))
    return found


def test_texts_stay_where_they_were() -> None:
    before, after = texts(drawn()), texts(compact(drawn()))
    assert [one[0] for one in before] == [one[0] for one in after]
    assert {"0.12345 stays", "a < b & “c”", "turned"} <= dict(after).keys()
    for (_, old), (_, new) in zip(before, after):
        assert new == pytest.approx(old, abs=0.01)
    assert dict(after)["turned"][-1] == -90


def test_lines_stay_clipped_by_the_axes() -> None:
    svg = compact(drawn())
    names = set(re.findall(r'clip-path="url\(#(\w+)\)"', svg))
    assert names
    defined = {one.get("id") for one in ET.fromstring(svg).iter(f"{SVG}clipPath")}
    assert names <= defined


def test_it_is_smaller_and_has_the_same_bytes_each_time() -> None:
    svg = compact(drawn())
    assert svg == compact(drawn())
    assert len(svg) < 0.7 * len(drawn())
    assert svg.count("\n") == 1
