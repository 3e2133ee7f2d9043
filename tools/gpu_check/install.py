"""Makes the environment of a run: ``install.py BUNDLE VENV``. Nothing is fetched.

The environment sees every package of the interpreter that runs this, its PyTorch among
them, also where that interpreter is itself of a virtual environment. Of the bundle's
wheels those are installed that it does not have.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
from pathlib import Path


def present(wheel: Path) -> bool:
    """Whether this interpreter has the package of a wheel, in whatever version."""
    try:
        importlib.metadata.distribution(wheel.name.split("-")[0])
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main() -> None:
    """Make the environment.

    Raises:
        subprocess.CalledProcessError: It cannot be made, or a wheel does not fit.
        SystemExit: There is no pip.
    """
    bundle, venv = Path(sys.argv[1]), Path(sys.argv[2])
    # Without pip, for Debian's Python lacks ensurepip; pip is the interpreter's.
    options = ["--without-pip", "--system-site-packages", str(venv)]
    subprocess.run([sys.executable, "-m", "venv", *options], check=True)
    python = venv / "bin" / "python3"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.check_output([python, "-c", code], text=True).strip()
    # --system-site-packages shows those of the base interpreter only.
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
    """Install wheels without their dependencies, which the bundle has as well."""
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
