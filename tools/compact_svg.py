"""Make SVG files of matplotlib small: rounded numbers, no metadata, one long line."""

import re
from pathlib import Path

from scour import scour

_OPTIONS = {
    "digits": 5,  # hundredths of a point in pictures below 1,000 points
    "cdigits": 5,
    "strip_ids": True,
    "shorten_ids": True,
    "strip_comments": True,
    "remove_metadata": True,
    "strip_xml_prolog": True,
    "newlines": False,
    "quiet": True,
}
# matplotlib writes a rotation for every text, also of 0 degrees.
_NO_ROTATION = re.compile(r' transform="rotate\(-?0 [^"]*\)"')
_PLACE = re.compile(r' ([xy])="(-?\d+\.\d{3,})"')
_DOCTYPE = re.compile(r"<!DOCTYPE[^>]*>\s*")


def compact(svg: str) -> str:
    """Return the same picture in fewer bytes; deterministic.

    Args:
        svg: SVG of matplotlib with ``svg.fonttype: none``, which keeps text as text.
    """
    text = _NO_ROTATION.sub("", svg)
    options = scour.sanitizeOptions(scour.parse_args([]))
    for name, value in _OPTIONS.items():
        setattr(options, name, value)
    text = scour.scourString(text, options)
    text = _DOCTYPE.sub("", text)
    # scour does not round the positions of texts and markers.
    text = _PLACE.sub(lambda found: f' {found[1]}="{float(found[2]):.2f}"', text)
    return f"{text.strip()}\n"


def compact_file(path: Path) -> None:
    """Rewrite a file with :func:`compact`."""
    path.write_text(compact(path.read_text(encoding="utf-8")), encoding="utf-8")
