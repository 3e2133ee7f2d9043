"""What the committed pages were made from: digests of inputs and of results.

Drawing all pictures takes a minute. A test compares these digests instead: if neither
the inputs nor the pages have changed since they were made, they fit together.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ablation.matrix import Matrix
from espnet_cif_hkd.io.tables import write_text

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# What the pages use beside the code here.
_ALSO = (
    "tools/compact_svg.py",
    "espnet_cif_hkd/cli/learning_curve.py",
    "espnet_cif_hkd/cli/published_curve.yaml",
)
_NAME = "results/pages.json"
# The page of all matrices, and its paragraph that is written by hand.
ALL = "all"
_ANSWER = "answer.md"


def inputs(matrix: Matrix) -> str:
    """Return a digest of a matrix, its notes, its results, and the code."""
    folder, corpus = matrix.path.parent, matrix.corpus
    # Hidden files, such as the lock of a run, are not committed.
    results = [
        path
        for path in sorted((folder / "results" / corpus).rglob("*"))
        if not path.name.startswith(".")
    ]
    files = [matrix.path, folder / f"{corpus}_notes.md", *results]
    own = _digest((path for path in files if path.is_file()), folder)
    code = [*sorted(HERE.glob("*.py")), *(ROOT / name for name in _ALSO)]
    return own + _digest(code, ROOT)


def answers(matrices: Iterable[Matrix]) -> list[Path]:
    """Return the paragraph about all matrices, of each of their folders."""
    folders = sorted({matrix.path.parent.resolve() for matrix in matrices})
    return [one / _ANSWER for one in folders if (one / _ANSWER).is_file()]


def all_inputs(matrices: Sequence[Matrix]) -> str:
    """Return a digest of what the page of all matrices is made from."""
    digests = [inputs(one) for one in matrices]
    digests += [_digest([path], path.parent) for path in answers(matrices)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _digest(files: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for path in files:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {found}\n".encode())
    return digest.hexdigest()


def write(
    folder: Path,
    root: Path,
    made: Mapping[str, tuple[str, Sequence[Path]]],
    matrices: Iterable[Matrix],
) -> Path:
    """Record pages that were made; returns the file.

    Args:
        folder: Of the matrices.
        root: Of the repository that the pages are in.
        made: By corpus: the digest of the inputs, and the files.
        matrices: Those with results; others have no entry.
    """
    path = folder / _NAME
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for corpus, (digest, files) in made.items():
        pages = {
            file.relative_to(root).as_posix(): _digest([file], root)
            for file in sorted(files)
        }
        known[corpus] = {"inputs": digest, "files": pages}
    wanted = sorted({ALL, *(matrix.corpus for matrix in matrices)} & known.keys())
    write_text(
        path, json.dumps({name: known[name] for name in wanted}, indent=1) + "\n"
    )
    return path


def faults(folder: Path, root: Path, matrices: Sequence[Matrix]) -> list[str]:
    """Return what does not fit: inputs or pages that have changed since.

    Args:
        folder: Of the matrices.
        root: Of the repository that the pages are in.
        matrices: Those with results, sorted by their files.
    """
    path = folder / _NAME
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    expected = {matrix.corpus: inputs(matrix) for matrix in matrices}
    expected[ALL] = all_inputs(matrices)
    found = [f"{name}: no such matrix" for name in known if name not in expected]
    for corpus, digest in expected.items():
        entry = known.get(corpus, {"inputs": "", "files": {}})
        if entry["inputs"] != digest:
            found.append(
                f"{corpus}: its matrix, notes, results or the code have changed"
            )
        for name, content in entry["files"].items():
            file = root / name
            if not file.is_file() or _digest([file], root) != content:
                found.append(f"{name}: missing, or not what the command has written")
    return found
