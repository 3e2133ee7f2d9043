"""Keys that a YAML file has twice: readers of YAML keep only the last one."""

from collections.abc import Iterator
from typing import Any


def repeated_key(text: str) -> tuple[str, int] | None:
    """Return a key that a mapping of a YAML text has twice, and its line from 1.

    Args:
        text: A YAML document. A malformed one has no such key.

    Example:
        >>> repeated_key("a: 1\\nb: {c: 1, d: 2, c: 3}")
        ('c', 2)
    """
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    for node in _mappings(root):
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key.value, str) or key.value == "<<":
                continue  # a list or a mapping as key; a merge
            if key.value in seen:
                return key.value, key.start_mark.line + 1
            if isinstance(key.value, str):
                seen.add(key.value)
    return None


def _mappings(node: Any) -> Iterator[Any]:
    """Yield the mappings of a document, from the outside to the inside."""
    import yaml

    pending, done = [node], set()
    while pending:
        found = pending.pop()
        if id(found) in done:  # an alias
            continue
        done.add(id(found))
        if isinstance(found, yaml.MappingNode):
            yield found
            pending += [value for _, value in found.value]
        elif isinstance(found, yaml.SequenceNode):
            pending += found.value
