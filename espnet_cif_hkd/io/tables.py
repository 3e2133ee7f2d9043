"""Kaldi's text tables: one ``key value…`` line for each utterance, sorted by key."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_text as write_text

# Files that Kaldi's copy_data_dir.sh copies and that a recipe for raw audio can have.
COPIED_FILES = ("text", "utt2spk", "spk2gender", "utt2uniq", "utt2lang")
UTTERANCE_FILES = ("text", "utt2spk", "utt2uniq", "utt2lang")
# Zero-width space; word joiner and zero-width no-break space (the byte order mark).
_INVISIBLE = {0x200B: " ", 0x2060: None, 0xFEFF: None}


def byte_order(key: str) -> bytes:
    """Sort key for the order of ``LC_ALL=C sort``, which Kaldi's tools need."""
    return key.encode("utf-8")


class NumberedTable(dict[str, str]):
    """A table with the line number of each key, from 1, in :attr:`lines`."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


def read_table(path: str | Path, fix: str = "") -> NumberedTable:
    """Read ``key value…`` lines; the value may be empty and keeps inner spaces.

    Args:
        path: the file.
        fix: fix for a missing file, for the message.

    Raises:
        UserError: the file is missing, is not UTF-8 or has a key twice.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing" + (f": {fix}" if fix else ""))
    table = NumberedTable()
    for number, line in enumerate(read_lines(path), 1):
        key, *rest = line.split(None, 1) or [""]
        if not key:
            continue
        if key in table:
            raise UserError(
                f"{path}, line {number}: {key} occurs twice, first in line "
                f"{table.lines[key]}: keep one line of it"
            )
        table[key] = rest[0].rstrip() if rest else ""
        table.lines[key] = number
    return table


def read_text(path: str | Path, fix: str = "") -> dict[str, str]:
    """Read a table of transcripts, with normalised white space.

    Raises:
        UserError: see :func:`read_table`.
    """
    table = read_table(path, fix)
    return {key: single_spaced(words) for key, words in table.items()}


def single_spaced(words: str) -> str:
    """Normalise white space: words separated by one ASCII space.

    Every Unicode space separates words, also the zero-width space, which marks a word
    boundary. A word joiner or byte order mark inside a text is removed. Otherwise these
    characters would become separate or unknown tokens.
    """
    return " ".join(words.translate(_INVISIBLE).split())


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a text file with LF, CRLF or CR line ends.

    A byte order mark at the beginning of a line is removed: joined files have several.

    Raises:
        UserError: the file is not UTF-8.
    """
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8 text: convert the file to UTF-8"
        ) from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = [line.lstrip("\ufeff") for line in lines]
    return lines if lines[-1] else lines[:-1]


def write_table(path: str | Path, table: Mapping[str, str]) -> None:
    """Write ``key value`` lines in Kaldi's order."""
    lines = (f"{key} {table[key]}".rstrip(" ") for key in sorted(table, key=byte_order))
    write_text(path, "".join(f"{line}\n" for line in lines))


def spk2utt(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """Turn utterance → speaker into speaker → utterances."""
    speakers: dict[str, list[str]] = {}
    for utterance in sorted(utt2spk, key=byte_order):
        speakers.setdefault(utt2spk[utterance], []).append(utterance)
    return {speaker: " ".join(names) for speaker, names in speakers.items()}


def copy_data_dir(source: Path, target: Path) -> int:
    """Copy the utterance files of a data folder in the format that ESPnet reads.

    ``spk2utt`` is made from ``utt2spk``.

    Returns:
        Number of transcripts with other white space than single ASCII spaces.
    """
    changed = 0
    for name in COPIED_FILES:
        if (source / name).is_file():
            table: dict[str, str] = read_table(source / name)
            if name == "text":
                text = {key: single_spaced(words) for key, words in table.items()}
                changed = sum(text[key] != words for key, words in table.items())
                table = text
            write_table(target / name, table)
    write_table(target / "spk2utt", spk2utt(read_table(target / "utt2spk")))
    return changed


def keep_utterances(folder: Path, keys: Iterable[str]) -> None:
    """Restrict every utterance file of ``folder`` to ``keys``."""
    kept = set(keys)
    for name in (*UTTERANCE_FILES, "wav.scp", "utt2num_samples"):
        path = folder / name
        if path.is_file():
            table = read_table(path)
            write_table(path, {key: table[key] for key in table if key in kept})
    utt2spk = read_table(folder / "utt2spk")
    write_table(folder / "spk2utt", spk2utt(utt2spk))


def split_evenly(keys: Sequence[str], parts: int) -> list[list[str]]:
    """Split ``keys`` into ``parts`` lists whose sizes differ by at most one."""
    parts = max(1, min(parts, len(keys)))
    size, rest = divmod(len(keys), parts)
    runs, at = [], 0
    for index in range(parts):
        end = at + size + (1 if index < rest else 0)
        runs.append(list(keys[at:end]))
        at = end
    return runs


def evenly(keys: Sequence[str], limit: int) -> list[str]:
    """Return at most ``limit`` keys at even distances: neighbours share a speaker."""
    import numpy as np

    places = np.linspace(0, len(keys) - 1, min(limit, len(keys)))
    return [keys[int(place)] for place in places]


def first_few(names: Iterable[str], limit: int = 5) -> str:
    """Return some names in one line, and the number of further ones."""
    listed = list(names)
    text = ", ".join(listed[:limit])
    return text if len(listed) <= limit else f"{text} and {len(listed) - limit} more"
