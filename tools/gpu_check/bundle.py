"""``bundle``: pack the repository, wheels and speech into one file."""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_check.steps import say
from gpu_check.wheels import RELEASES, SOURCE_ONLY, release_of

MIB = 1 << 20
MAX_MIB = 60
FILE = Path("downloads/gpu_bundle/gpu_bundle.tar.gz")
TOP = "gpu_bundle"
_UTTERANCES = 34  # as many as the miniature LibriSpeech has
_FOTAQ = Path("egs2/fotaq/asr_hkd")


class BundleError(Exception):
    """The reason, in one line, why a bundle cannot be made or run."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``bundle``."""
    parser.add_argument("file", nargs="?", type=Path, help=f"default: {FILE}")
    parser.add_argument(
        "--python",
        default="3.12",
        choices=("3.10", "3.11", "3.12"),
        help="the GPU machine's Python; 3.12 gets ESPnet 202611, the others 202511",
    )
    parser.add_argument("--arch", default="x86_64", choices=("x86_64", "aarch64"))
    parser.add_argument(
        "--add",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="one more package that the machine lacks; may be repeated",
    )
    parser.add_argument(
        "--have",
        type=Path,
        metavar="FILE",
        help="pip list --format=freeze of the GPU machine: these packages are left out",
    )
    parser.add_argument(
        "--head", action="store_true", help="the last commit, not the working tree"
    )
    parser.add_argument(
        "--fotaq_archive", type=Path, help="queen.1c, or its Debian package"
    )
    parser.add_argument(
        "--without_fotaq", action="store_true", help="train on the miniature corpus"
    )
    parser.add_argument(
        "--without_wheels", action="store_true", help="the machine has every package"
    )
    parser.add_argument("--max_mib", type=float, default=MAX_MIB, help="refuse more")


def main(args: argparse.Namespace, root: Path) -> int:
    """Build the bundle.

    Raises:
        BundleError: A part is not available, or the bundle is too large.
    """
    target = args.file or root / FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".bundle.") as folder:
        top = Path(folder) / TOP
        manifest: dict[str, Any] = {
            "commit": commit(root, args.head),
            "python": args.python,
            "arch": args.arch,
            "espnet": release_of(args.python),
        }
        say(f"repository: {manifest['commit']}")
        copy_repository(root, top / "repo", args.head)
        if not args.without_wheels:
            fetch_wheels(args, top / "repo", top / "wheels")
        archive = None if args.without_fotaq else pack_fotaq(args, root, top / "fotaq")
        make_miniature(root, top, archive)
        sizes = {part.name: size_of(part) for part in sorted(top.iterdir())}
        (top / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        say("packing")
        packed = Path(folder) / "packed"
        with tarfile.open(packed, "w:gz", compresslevel=6) as tar:
            tar.add(top, TOP)
        each = ", ".join(f"{name} {size / MIB:.1f}" for name, size in sizes.items())
        size = packed.stat().st_size
        if size > args.max_mib * MIB:
            raise BundleError(
                f"the bundle has {size / MIB:.1f} MiB, over {args.max_mib:g} ({each}): "
                "leave packages out by --have, or the corpus by --without_fotaq"
            )
        packed.replace(target)
    say(f"MiB, before compression: {each}")
    say(f"{target}: {size / MIB:.1f} MiB")
    return 0


def _run(
    command: list[str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def commit(root: Path, head: bool) -> str:
    """Return the commit, and whether the packed working tree differs from it."""
    done = _run(["git", "rev-parse", "HEAD"], root)
    if done.returncode:
        raise BundleError(f"{root} is no git repository, and a bundle names its commit")
    changed = _run(["git", "status", "--porcelain"], root).stdout.strip()
    return done.stdout.strip() + (" with local changes" if changed and not head else "")


def copy_repository(root: Path, target: Path, head: bool) -> None:
    """Copy the files that git does not ignore, or those of the last commit."""
    target.mkdir(parents=True)
    if head:
        done = subprocess.run(
            ["git", "archive", "HEAD"], cwd=root, capture_output=True, check=True
        )
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            tar.extractall(target, filter="data")
        return
    listed = _run(["git", "ls-files", "-coz", "--exclude-standard"], root).stdout
    for name in filter(None, listed.split("\0")):
        source, copy = root / name, target / name
        if source.is_symlink() or source.is_file():  # git also lists deleted files
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def fetch_wheels(args: argparse.Namespace, repository: Path, target: Path) -> None:
    """Fetch wheels for the GPU machine's Python; build the wheel of this package."""
    release = release_of(args.python)
    constraints = repository / "tools" / f"constraints-{release}.txt"
    target.mkdir()
    present = _names(args.have) if args.have else set()
    wanted = [*RELEASES[release], *args.add]
    wanted = [name for name in wanted if canonical(name) not in present]
    sources = [name for name in wanted if canonical(name) in SOURCE_ONLY]
    wanted = [name for name in wanted if name not in sources]
    say(f"{len(wanted)} wheels and espnet=={release}")
    fetch([*wanted, f"espnet=={release}"], args, constraints, target)
    for source in [*sources, str(repository)]:
        say(f"building a wheel of {source}")
        build(source, target)
    for leftover in ("build", "espnet_cif_hkd.egg-info"):
        shutil.rmtree(repository / leftover, ignore_errors=True)


def canonical(requirement: str) -> str:
    """Return the normalised name of a requirement."""
    name = requirement
    for mark in "=<>!~[; ":
        name = name.split(mark)[0]
    return name.lower().replace("_", "-").replace(".", "-")


def _names(freeze: Path) -> set[str]:
    lines = freeze.read_text("utf-8").splitlines()
    return {canonical(line.split(" @ ")[0]) for line in lines if line.strip()}


def fetch(
    names: list[str], args: argparse.Namespace, constraints: Path, target: Path
) -> None:
    """Fetch wheels for the GPU machine.

    Raises:
        BundleError: A wheel is not available.
    """
    tags = [f"_2_{n}" for n in (35, 34, 31, 28, 27, 26, 24, 17, 12, 5)]
    tags += ["2014", "2010", "1"]
    platforms = ["any", *(f"manylinux{tag}_{args.arch}" for tag in tags)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", args.python]
    command += ["--implementation", "cp", "--dest", str(target)]
    command += [word for p in platforms for word in ("--platform", p)]
    done = _run([*command, "-c", str(constraints), *names])
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["pip gives no reason"]
        raise BundleError(f"pip cannot fetch the wheels: {lines[-1]}")


def build(source: str, target: Path) -> None:
    """Build a wheel of pure Python.

    Raises:
        BundleError: The wheel cannot be built, or is for this machine only.
    """
    with tempfile.TemporaryDirectory(dir=target) as folder:
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
        done = _run([*command, "-w", folder, source])
        wheels = sorted(Path(folder).glob("*-none-any.whl"))
        if done.returncode or not wheels:
            lines = done.stderr.strip().splitlines() or ["not pure Python"]
            raise BundleError(f"there is no wheel of {source}: {lines[-1]}")
        wheels[0].replace(target / wheels[0].name)


def pack_fotaq(args: argparse.Namespace, root: Path, target: Path) -> Path:
    """Copy FOTAQ's archive; return its path."""
    downloads = root / _FOTAQ / "downloads"
    sys.path.insert(0, str(root / _FOTAQ / "local"))
    from fotaq_archive import ArchiveError  # type: ignore[import-not-found]
    from fotaq_fetch import obtain  # type: ignore[import-not-found]

    say("FOTAQ: the archive (35 MB if it is fetched)")
    try:
        archive = Path(obtain(args.fotaq_archive, downloads))
    except ArchiveError as error:
        raise BundleError(f"{error}; or bundle --without_fotaq") from None
    target.mkdir()
    shutil.copyfile(archive, target / "queen.1c")
    return archive


def make_miniature(root: Path, target: Path, archive: Path | None) -> None:
    """Write ``miniature``, the LibriSpeech of the tests, and ``teacher``.

    The first has FOTAQ's speech or tones, the second is a tiny random HuBERT.
    """
    say("miniature corpus")
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(_test_folders(root)))
    if archive is not None:
        environment["MINIATURE_FOTAQ"] = str(archive)
    code = (
        "import sys; from pathlib import Path;"
        "from miniature.english import english;"
        "from miniature.librispeech import write_librispeech;"
        "from tiny_speech_teachers import build_tiny_speech;"
        "top = Path(sys.argv[1]);"
        f"write_librispeech(top / 'miniature', english({_UTTERANCES}));"
        "build_tiny_speech(top / 'teacher', 'hubert')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BundleError(
            f"the miniature corpus cannot be made ({reason}): run this with the Python "
            "of tools/install.sh, PYTHON=.venv/bin/python"
        )


def _test_folders(root: Path) -> Iterator[str]:
    """Yield the folders of ``miniature`` and of this package."""
    for folder in (root / "tests", root / "tests" / "support", root):
        if folder.is_dir():
            yield str(folder)


def size_of(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.lstat().st_size for p in path.rglob("*") if not p.is_dir())
