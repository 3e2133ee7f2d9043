"""Make the environment of a run, without a network: ``install.py BUNDLE VENV``.

The environment includes all packages of the interpreter that runs this, such as
PyTorch, also if that interpreter belongs to a virtual environment. Wheels of the bundle
are installed only for missing packages.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
from pathlib import Path


def present(wheel: Path) -> bool:
    """Whether this interpreter has the package of a wheel, in any version."""
    try:
        importlib.metadata.distribution(wheel.name.split("-")[0])
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main() -> None:
    """Make the environment.

    Raises:
        subprocess.CalledProcessError: The environment cannot be made, or a wheel does
            not fit.
        SystemExit: pip is missing.
    """
    bundle, venv = Path(sys.argv[1]), Path(sys.argv[2])
    # Without pip, because Debian's Python lacks ensurepip; the interpreter's pip is
    # used.
    options = ["--without-pip", "--system-site-packages", str(venv)]
    subprocess.run([sys.executable, "-m", "venv", *options], check=True)
    python = venv / "bin" / "python3"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.check_output([python, "-c", code], text=True).strip()
    # --system-site-packages includes only those of the base interpreter.
    theirs = dict.fromkeys(sysconfig.get_path(k) for k in ("purelib", "platlib"))
    lines = [f"import site; site.addsitedir({folder!r})" for folder in theirs]
    Path(own, "gpu_check_machine.pth").write_text("\n".join(lines) + "\n")
    wheels = sorted(bundle.glob("wheels/*.whl"))
    chosen = [
        w for w in wheels if w.name.startswith("espnet_cif_hkd-") or not present(w)
    ]
    print("left as they are:", *(w.name for w in wheels if w not in chosen))
    if chosen:
        pip(python, chosen)
    else:  # a bundle --without_wheels; sorts before the machine's, so it wins
        Path(own, "gpu_check_0_repo.pth").write_text(f"{bundle / 'repo'}\n")


def pip(python: Path, wheels: list[Path]) -> None:
    """Install wheels without dependencies, which are in the bundle, too."""
    command = [str(python), "-m", "pip"]
    if subprocess.run([*command, "--version"], check=False).returncode:
        raise SystemExit(f"{sys.executable} has no pip: name another one by PYTHON")
    command += ["install", "--no-index", "--no-deps", "--no-cache-dir", "--no-compile"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    subprocess.run(
        [*command, "--ignore-installed", *map(str, wheels)],
        check=True,
        env={**environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )


if __name__ == "__main__":
    main()
