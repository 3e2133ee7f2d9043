"""The recipes of a run: the complete miniature recipe, then FOTAQ while there is time.

If FOTAQ is not in the bundle, the miniature corpus replaces it.
"""

from __future__ import annotations

import argparse
import io
import re
import shlex
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

# Names of the package's trainer.
CHECKPOINT, PREVIOUS = "checkpoint.pth", "checkpoint.previous.pth"
_PART = 15 << 20  # bytes of each file that the checkpoint is split into
_QUIET = 1.5  # seconds after which a checkpoint is no longer being written
_EPOCH = re.compile(r"(\d+)epoch results: (.*)")
_VALUE = re.compile(r"(\w+)=([^,\[]+)")


class Training:
    """Commands and results of the recipes.

    Args:
        bundle: The unpacked bundle.
        args: Options of ``run``.
        python: The environment's interpreter.
        cores: Number of processes for data preparation.
    """

    def __init__(
        self, bundle: Path, args: argparse.Namespace, python: str, cores: int
    ) -> None:
        self.args, self.bundle, self.python, self.cores = args, bundle, python, cores
        self.repo = bundle / "repo"
        self.has_fotaq = (bundle / "fotaq" / "queen.1c").is_file()
        self.ngpu = "1" if args.device == "cuda" else "0"
        # Clocks of file systems are a few milliseconds behind.
        self.begun = time.time() - 0.1

    def folder_of(self, step: str) -> Path:
        """Return the working directory of a step."""
        fotaq = self.repo / "egs2/fotaq/asr_hkd"
        librispeech = self.repo / "egs2/librispeech/asr_hkd"
        return {
            "miniature recipe": librispeech,
            "miniature students": librispeech,
            "FOTAQ data": fotaq,
            "training": fotaq if self.has_fotaq else librispeech,
        }.get(step, self.repo)

    def _librispeech(self, *options: str, config: str = "miniature") -> list[str]:
        config = str(self.repo / f"tools/gpu_check/{config}.yaml")
        nj = str(min(2, self.cores))
        return [
            *("env", f"LIBRISPEECH={self.bundle / 'miniature'}", "./run.sh"),
            *("--incomplete", "true", "--asr_config", config, "--nbpe", "40"),
            *("--nj", nj, "--inference_nj", "1", "--ngpu", self.ngpu, *options),
        ]

    def miniature(self) -> list[str]:
        """Return the command of the miniature recipe: float16, decoding on the GPU."""
        amp = "true" if self.ngpu == "1" else "false"
        return self._librispeech(
            *("--asr_args", f"--use_amp {amp}", "--stop_stage", "13"),
            *("--gpu_inference", "true" if self.ngpu == "1" else "false"),
            *("--inference_args", "--beam_size 3"),
        )

    def students(self) -> list[str]:
        """Return the command of stage 1, and of a streaming transducer from it.

        Both in float16; it needs the data of the miniature recipe.
        """
        amp = ("--asr_args", f"--use_amp {'true' if self.ngpu == '1' else 'false'}")
        pretrain = self._librispeech(
            *("--asr_tag", "pretrain", "--stage", "10", "--stop_stage", "11", *amp),
            config="pretrain",
        )
        transducer = self._librispeech(
            *("--asr_tag", "transducer", "--stage", "10", "--stop_stage", "13", *amp),
            *("--gpu_inference", "true" if self.ngpu == "1" else "false"),
            *("--inference_args", "--beam_size 1"),
            *("--pretrained_model", "exp/asr_pretrain/valid.loss.ave.pth"),
            config="transducer",
        )
        transducer[-1] += ":encoder:encoder"
        return [
            *("bash", "-c", f"{shlex.join(pretrain)} && {shlex.join(transducer)}"),
        ]

    def _fotaq(self, *options: str) -> list[str]:
        archive = self.bundle / "fotaq" / "queen.1c"
        chosen = shlex.split(self.args.training)
        if self.args.quick:
            chosen += ["--subset", "40"]
        return [
            *("./run.sh", *chosen, "--fotaq_archive", str(archive)),
            *("--nj", str(self.cores), "--ngpu", self.ngpu, *options),
        ]

    def data(self) -> list[str]:
        """Return the command of stages 1 to 10 of FOTAQ."""
        return self._fotaq("--stop_stage", "10")

    def command(self) -> list[str]:
        """Return the command of the training that runs until the time limit."""
        stage = ["--stage", "11", "--stop_stage", "11"]
        if self.has_fotaq:
            return self._fotaq(*stage)
        long = ["--asr_tag", "long", "--asr_args", "--max_epoch 10000"]
        return self._librispeech(*long, *stage)

    def _experiment(self) -> Path | None:
        """Return the experiment folder of the training."""
        logs = [
            path
            for path in self.folder_of("training").glob("exp/**/train.log")
            if path.stat().st_mtime >= self.begun
        ]
        newest = max(logs, key=lambda path: path.stat().st_mtime, default=None)
        return None if newest is None else newest.parent

    def checkpoint_is_complete(self) -> bool:
        """Whether a stop now leaves a readable checkpoint."""
        folder = self._experiment()
        if folder is None or (folder / PREVIOUS).is_file():
            return True  # nothing is lost
        checkpoint = folder / CHECKPOINT
        if not checkpoint.is_file():
            return True
        return time.time() - checkpoint.stat().st_mtime > _QUIET

    def collect(self, out: Path) -> dict[str, Any]:
        """Save log, configuration and checkpoint; return the values of the log."""
        corpus = "FOTAQ" if self.has_fotaq else "miniature LibriSpeech"
        found: dict[str, Any] = {"corpus": corpus, "epochs": 0}
        if self.has_fotaq:
            found["options"] = shlex.join(self._fotaq())
        folder = self._experiment()
        if folder is None:
            return found
        found |= read_log((folder / "train.log").read_text("utf-8", "replace"))
        members = {name: folder / name for name in ("train.log", "config.yaml")}
        # While the trainer writes a checkpoint, the one before has another name.
        written = [folder / name for name in (CHECKPOINT, PREVIOUS)]
        readable = [path for path in written if zipfile.is_zipfile(path)]
        if readable:
            found["checkpoint"] = "complete"
            members[CHECKPOINT] = readable[0]
        elif any(path.is_file() for path in written):
            found["checkpoint"] = "DAMAGED"
        found["kept"] = split_tar(members, out, folder.name)
        return found


def read_log(text: str) -> dict[str, Any]:
    """Return the number of epochs in a training log, and the values of the last one.

    Values are those of the training set (``train_``) and the development set
    (``valid_``).
    """
    epochs = list(_EPOCH.finditer(text))
    if not epochs:
        return {"epochs": 0}
    last: dict[str, Any] = {}
    for part in epochs[-1][2].split("["):
        name, _, values = part.partition("]")
        if name in ("train", "valid"):
            for key, value in _VALUE.findall(values):
                last[f"{name}_{key}"] = value.strip()
    keep = ("loss", "nll", "acc", "cer", "cer_free", "cer_ctc", "time", "total_count")
    keep += ("gpu_max_cached_mem_GB",)
    shown = {k: v for k, v in last.items() if k.split("_", 1)[1] in keep}
    return {"epochs": int(epochs[-1][1]), "last_epoch": shown}


def split_tar(members: dict[str, Path], out: Path, folder: str) -> list[str]:
    """Write ``training.tar.00`` and so on; ``cat`` them to get the archive.

    Args:
        members: Files by their name in the archive; missing ones are left out.
        out: Where to write.
        folder: Folder of the members in the archive.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, file in members.items():
            if file.is_file():
                tar.add(file, f"{folder}/{name}")
    content, names = stream.getvalue(), []
    for number, start in enumerate(range(0, len(content), _PART)):
        names.append(f"training.tar.{number:02}")
        (out / names[-1]).write_bytes(content[start : start + _PART])
    return names
