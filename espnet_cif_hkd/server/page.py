"""The page at ``/``: one HTML file with its script and style, all in the package."""

from importlib import resources

from fastapi import APIRouter
from fastapi.responses import Response

router = APIRouter()
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


def _file(name: str) -> Response:
    path = resources.files("espnet_cif_hkd.server") / "static" / name
    media_type = f"{_TYPES[name.rsplit('.', 1)[1]]}; charset=utf-8"
    headers = {"cache-control": "no-cache"}
    return Response(path.read_bytes(), media_type=media_type, headers=headers)


@router.get("/", include_in_schema=False)
def page() -> Response:
    """Return the page."""
    return _file("page.html")


@router.get("/page.js", include_in_schema=False)
def script() -> Response:
    """Return its script."""
    return _file("page.js")


@router.get("/page.css", include_in_schema=False)
def style() -> Response:
    """Return its style."""
    return _file("page.css")
