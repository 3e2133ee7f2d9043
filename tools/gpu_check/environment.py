"""Describe the environment of a run: ``environment.py DEVICE FILE``.

It imports the modules of training and decoding and names missing ones.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

DISTRIBUTIONS = (
    "torch",
    "torchaudio",
    "espnet",
    "espnet-cif-hkd",
    "numpy",
    "transformers",
    "tokenizers",
    "librosa",
    "soundfile",
    "sentencepiece",
    "triton",
    "pytest",
)
MODULES = (
    "espnet2.bin.asr_train",
    "espnet2.bin.asr_inference",
    "espnet_cif_hkd",
    "espnet_cif_hkd.recipe",
    "tokenizers",
    "transformers",
    "sentencepiece",
    "soundfile",
    "pytest_timeout",
)


def version_of(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def card() -> dict[str, Any]:
    """Return the GPU, its driver and the CUDA version of PyTorch."""
    import torch

    if not torch.cuda.is_available():
        return {"gpu": "none that PyTorch sees", "cuda": str(torch.version.cuda)}
    memory = torch.cuda.get_device_properties(0).total_memory
    return {
        "gpu": torch.cuda.get_device_name(),
        "gpu_memory_gib": round(memory / 2**30, 1),
        "compute_capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "driver": driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
    }


def driver() -> str:
    """Return the version of the driver, from ``nvidia-smi`` or the kernel."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        path = Path("/proc/driver/nvidia/version")
        return path.read_text().splitlines()[0] if path.is_file() else "unknown"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> int:
    """Write the file; return 1 if a module or the GPU is missing."""
    device, target = sys.argv[1], Path(sys.argv[2])
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "processor": processor(),
        "card": card(),
        "versions": {name: version_of(name) for name in DISTRIBUTIONS},
    }
    target.write_text(json.dumps(found))
    failed = []
    for name in MODULES:
        try:
            importlib.import_module(name)
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
    if not failed:
        import espnet_cif_hkd

        espnet_cif_hkd.register()
    if device == "cuda" and "driver" not in found["card"]:
        failed.append("PyTorch sees no GPU; run --device cpu uses the CPU instead")
    print(*failed, sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
