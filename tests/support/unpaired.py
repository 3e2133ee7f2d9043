"""A text without speech for ``text_only``, and the criterion's options."""

import os

LINES = ("ABBA", "A CAFE", "HEAD", "BAD FACE", "A", "DEAF CAGE BED", "FED")


def text_file(folder, lines=LINES):
    """A Kaldi text file."""
    path = folder / "unpaired"
    # Ranks of one test share the folder: none may read what another has half written.
    part = folder / f"unpaired.{os.getpid()}"
    part.write_text("".join(f"s{n} {line}\n" for n, line in enumerate(lines)))
    return str(part.replace(path))


def criteria(folder, lines=LINES, **options):
    """``model_conf`` with one criterion, called ``text``."""
    conf = {"type": "text_only", "text": text_file(folder, lines), "batch_size": 3}
    return {"criteria": {"text": {**conf, **options}}}
