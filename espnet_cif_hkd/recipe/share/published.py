"""Removes local paths, credentials and secrets from what is published."""

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

HIDDEN = "LOCAL_PATH"
_SECRET = "HIDDEN"
# scheme://user:password@host/path?query#fragment
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
# Absolute paths, at the beginning of a word or after one of = : , ( [ { > | @ or a
# quote, also that of Markdown, `. A single "/" is text, and "</s>" is a tag.
_PATH = re.compile(
    r"(?<![^\s=:,;(\[{>|@'\"`])(?:~[\w.-]*(?=/)|(?=/[^\s/<>|]))"
    r"(?:/(?:\\ |[^\s'\"`=:,;()\[\]{}<>|])*)*|\b[A-Za-z]:\\[^\s'\"`,;]+"
)
# Tokens of the hub and of common services.
_TOKEN = re.compile(
    r"\b(?:hf_|gh[pousr]_|github_pat_|glpat-|xox[abpr]-|sk-|AKIA)[A-Za-z0-9_-]{8,}"
)
# Names of secrets, and names of units that end alike. "Tokens" are units of text.
_SECRET_NAME = (
    r"[\w.-]*(?:passwords?|passwd|secrets?|token|api_?keys?|credentials?)(?![\w.-])"
)
_IS_SECRET = re.compile(_SECRET_NAME, re.IGNORECASE)
_UNIT = re.compile(r"(?:bos|eos|sos|unk|pad|sep|cls|mask|blank|space)_?token", re.I)
# Values after names of secrets: NAME=VALUE, NAME: VALUE, --NAME VALUE.
_NAMED = re.compile(
    rf"(?P<name>(?:(?<![\w.-]){_SECRET_NAME}[\"']?[ \t]*[=:][ \t]*"
    rf"|--{_SECRET_NAME}[ \t]+(?=[^\s-])))"
    r"(?P<value>'[^']*'|\"[^\"]*\"|[^\s'\",;}|]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(?P<name>\bAuthorization[\"']?[ \t]*[=:][ \t]*[\"']?\w+[ \t]+"
    r"|\bBearer[ \t]+(?=\S*\d))(?P<value>[\w.~+/=-]+)",
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
    text = _without_values(text)
    return re.sub(r"\0(\d+)\0", lambda match: addresses[int(match[1])], text)


def has_credentials(url: str) -> bool:
    """Whether an address has a password, a token or another secret.

    The user of an address of the web may be a token; that of SSH is a name.
    """
    scheme, _, rest = url.partition("://")
    user = rest.partition("/")[0].rpartition("@")[0]
    of_web = bool(user) and scheme.lower().endswith(("http", "https"))
    return of_web or ":" in user or bool(_TOKEN.search(url) or _NAMED.search(url))


def _is_secret(name: str) -> bool:
    found = _IS_SECRET.fullmatch(name.strip())
    return found is not None and _UNIT.search(name) is None


def _without_values(text: str) -> str:
    """Hide values after names of secrets."""

    def hidden(match: re.Match[str]) -> str:
        unit = _UNIT.search(match["name"])
        return match[0] if unit else match["name"] + _SECRET

    return _HEADER.sub(hidden, _NAMED.sub(hidden, text))


def _address(url: str, queries: bool) -> str:
    scheme, _, rest = url.partition("://")
    if scheme.lower() == "file":
        return _named_path("/" + rest.lstrip("/"))
    if not queries:
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    path = _without_values(path) if queries else path
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{_TOKEN.sub(_SECRET, path)}"


def _named_path(path: str) -> str:
    kind = PureWindowsPath if "\\" in path and ":" in path[:2] else PurePosixPath
    parts = kind(path).parts
    home = len(parts) == 3 and parts[1].lower() in ("home", "users", "user")
    # The first part is the root; "~" counts as a root, too.
    return HIDDEN if len(parts) < 3 or home else f"{HIDDEN}/{parts[-1]}"


def publishable_config(value: Any, queries: bool = False) -> Any:
    """Apply :func:`publishable` to all names and texts of a configuration.

    The values of names of secrets are hidden. ``token_list`` is not changed: its
    entries are units, such as "/".
    """
    if isinstance(value, str):
        return publishable(value, queries)
    if isinstance(value, dict):
        return {
            _cleaned(key, queries): _secret_or(key, item, queries)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _secret_or(name[2:], item, queries)
            if isinstance(name, str) and name.startswith("--")
            else publishable_config(item, queries)
            for name, item in zip(["", *value], value)
        ]
    return value


def _cleaned(key: Any, queries: bool) -> Any:
    return publishable(key, queries) if isinstance(key, str) else key


def _secret_or(name: Any, value: Any, queries: bool) -> Any:
    """The value of a name without its secrets."""
    if name == "token_list":
        return value
    is_given = not isinstance(value, bool) and bool(value)
    if is_given and isinstance(name, str) and _is_secret(name):
        return _SECRET
    return publishable_config(value, queries)
