"""Kaldi's text tables: one ``key value…`` line per utterance, sorted by key."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_text as write_text

# What Kaldi's copy_data_dir.sh takes along that a recipe for raw audio can have.
COPIED_FILES = ("text", "utt2spk", "spk2utt", "spk2gender", "utt2uniq", "utt2lang")
UTTERANCE_FILES = ("text", "utt2spk", "utt2uniq", "utt2lang")


def byte_order(key: str) -> bytes:
    """The order of ``LC_ALL=C sort``, which Kaldi's tools rely on."""
    return key.encode("utf-8")


def read_table(path: str | Path, mend: str = "") -> dict[str, str]:
    """Read ``key value…`` lines; the value may be empty and keeps inner spaces.

    Args:
        path: the file.
        mend: what the user should do when the file is missing.

    Raises:
        UserError: the file is missing, is not UTF-8 or has a key twice.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing" + (f": {mend}" if mend else ""))
    table: dict[str, str] = {}
    for line in read_lines(path):
        parts = line.strip().split(None, 1)
        if not parts:
            continue
        if parts[0] in table:
            raise UserError(f"{path}: {parts[0]} occurs twice: keep one line of it")
        table[parts[0]] = parts[1] if len(parts) > 1 else ""
    return table


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file; only a newline ends one, as for the shell's tools.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}): convert it to UTF-8"
        ) from error
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


def copy_data_dir(source: Path, target: Path) -> None:
    """Copy the utterance files of a data folder; the speakers are derived anew."""
    target.mkdir(parents=True, exist_ok=True)
    for name in COPIED_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    utt2spk = read_table(target / "utt2spk")
    write_table(target / "utt2spk", utt2spk)
    write_table(target / "spk2utt", spk2utt(utt2spk))
    if (target / "text").is_file():
        write_table(target / "text", read_table(target / "text"))


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
    """Cut ``keys`` into ``parts`` runs whose sizes differ by one at most."""
    parts = max(1, min(parts, len(keys)))
    size, rest = divmod(len(keys), parts)
    runs, at = [], 0
    for index in range(parts):
        end = at + size + (1 if index < rest else 0)
        runs.append(list(keys[at:end]))
        at = end
    return runs


def first_few(names: Iterable[str], limit: int = 5) -> str:
    """Name some utterances in one line, and say how many more there are."""
    listed = list(names)
    text = ", ".join(listed[:limit])
    return text if len(listed) <= limit else f"{text} and {len(listed) - limit} more"
