"""Removes local paths, credentials and secrets from what is published."""

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

HIDDEN = "LOCAL_PATH"
_SECRET = "HIDDEN"
# scheme://user:password@host/path?query#fragment
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
# Absolute paths, at the beginning of a word or after = : , ( [ { or a quote, also that
# of Markdown, `. A single "/" is text.
_PATH = re.compile(
    r"(?<![^\s=:,;(\[{'\"`])(?:~[\w.-]*(?=/)|(?=/[^\s/]))"
    r"(?:/(?:\\ |[^\s'\"`=:,;()\[\]{}])*)*|\b[A-Za-z]:\\[^\s'\"`,;]+"
)
# Tokens of the hub and of common services, and words after names of secrets.
_TOKEN = re.compile(
    r"\b(?:hf_|gh[pousr]_|github_pat_|glpat-|xox[abpr]-|sk-|AKIA)[A-Za-z0-9_-]{8,}"
)
# Values after names of secrets: NAME=VALUE, NAME: VALUE, --NAME VALUE.
_NAMED = re.compile(
    r"(?P<name>(?:\b|--)[\w.-]*(?:password|passwd|secret|token|api_?key|credential)s?"
    r"(?:[\"']?\s*[=:]\s*|(?<=\w)\s+(?=[^\s-])))"
    r"(?P<value>'[^']*'|\"[^\"]*\"|[^\s'\",;}]+)",
    re.IGNORECASE,
)


def publishable(text: str, queries: bool = False) -> str:
    """Remove absolute paths, credentials and queries of addresses from a text.

    A path becomes ``LOCAL_PATH/NAME`` with its last part; a home folder, or a folder
    directly in the root, becomes ``LOCAL_PATH``.

    Args:
        text: To publish.
        queries: Keep queries and fragments of addresses, but for secrets in them: for
            a text that was written to be published.
    """
    addresses: list[str] = []

    def keep(match: re.Match[str]) -> str:
        addresses.append(_address(match[0], queries))
        return f"\0{len(addresses) - 1}\0"

    text = _URL.sub(keep, text)
    text = _PATH.sub(lambda match: _named_path(match[0]), text)
    text = _TOKEN.sub(_SECRET, text)
    text = _NAMED.sub(lambda match: match["name"] + _SECRET, text)
    return re.sub(r"\0(\d+)\0", lambda match: addresses[int(match[1])], text)


def has_credentials(url: str) -> bool:
    """Whether an address has a password, a token or another secret."""
    user = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    return ":" in user or bool(_TOKEN.search(url) or _NAMED.search(url))


def _address(url: str, queries: bool) -> str:
    scheme, _, rest = url.partition("://")
    if scheme.lower() == "file":
        return _named_path("/" + rest.lstrip("/"))
    if not queries:
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    path = _NAMED.sub(lambda match: match["name"] + _SECRET, path) if queries else path
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{_TOKEN.sub(_SECRET, path)}"


def _named_path(path: str) -> str:
    kind = PureWindowsPath if "\\" in path and ":" in path[:2] else PurePosixPath
    parts = kind(path).parts
    home = len(parts) == 3 and parts[1].lower() in ("home", "users", "user")
    # The first part is the root; "~" counts as a root, too.
    return HIDDEN if len(parts) < 3 or home else f"{HIDDEN}/{parts[-1]}"


def publishable_config(value: Any, queries: bool = False) -> Any:
    """Apply :func:`publishable` to all texts of a configuration.

    ``token_list`` is not changed: its entries are units, such as "/".
    """
    if isinstance(value, str):
        return publishable(value, queries)
    if isinstance(value, dict):
        return {
            key: item if key == "token_list" else publishable_config(item, queries)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [publishable_config(item, queries) for item in value]
    return value
