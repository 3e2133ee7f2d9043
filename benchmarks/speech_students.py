"""Students from encoders that learned from speech teachers: train, decode, compare.

    python3 benchmarks/speech_students.py [--jobs 2] [--limit SECONDS] [--cuda]
        [--pretrain_epochs 10] [--epochs 6] [--students transducer:scratch:1 …]

FOTAQ, the complete corpus. First an encoder is pre-trained for each set of teachers
that a student names: ``base`` (Whisper base), ``tiny`` (Whisper tiny.en), ``both``, and
``random``, the control: Whisper base with random weights. Then every student is
trained, from such an encoder or from ``scratch``, decoded on test and scored. A student
is SYSTEM:TEACHERS:SEED. ``--limit`` stops everything after this time; finished parts
are kept and are not repeated by the next call (with ``ESPNET_ROOT`` only trainings).

Run stages 1 to 10 first, and fill the stores of ``conf/pretrain.yaml`` (and
``dump/whisper_random`` for ``random``)::

    cd egs2/fotaq/asr_hkd
    ./run.sh --system cif --pretrain true --stop_stage 10
    python3 -m espnet_cif_hkd.cli.dump_speech_teacher --teacher downloads/whisper_base \
        --teacher_type random --fs 11025 --store dump/whisper_random \
        --data_dir dump/raw/train dump/raw/dev
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from espnet_cif_hkd.recipe.stages.report import sums_of

RECIPE = Path(__file__).resolve().parents[1] / "egs2/fotaq/asr_hkd"
EXP = "exp/speech_students"
STUDENTS = [
    f"transducer:{teachers}:1"
    for teachers in ("scratch", "random", "base", "tiny", "both")
]


def teacher_sets(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the configurations of the pre-trainings by name."""
    speech = config["model_conf"]["criteria"]["speech"]
    known = speech["teachers"]
    control = {**known["base"], "teacher_type": "random"}
    control["teacher_store"] = "dump/whisper_random"
    chosen = {
        "base": {"base": known["base"]},
        "tiny": {"tiny": known["tiny"]},
        "both": known,
        "random": {"random": control},
    }
    made = {}
    for name, teachers in chosen.items():
        made[name] = deepcopy(config)
        made[name]["model_conf"]["criteria"]["speech"]["teachers"] = teachers
    return made


class Queue:
    """Runs commands, some at a time, each after those that it needs.

    Args:
        jobs: Number of commands at a time.
        limit: Seconds after which running commands are stopped.
    """

    def __init__(self, jobs: int, limit: float) -> None:
        self.jobs = jobs
        self.end = time.monotonic() + limit
        self.status: dict[str, int] = {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, items: dict[str, tuple[list[str], str | None]]) -> None:
        """Run commands by name, each with the name of the one that it needs."""
        pending = dict(items)
        while (pending or self.running) and time.monotonic() < self.end:
            for name, (words, needed) in list(pending.items()):
                if needed is not None and self.status.get(needed, 1):
                    if needed in self.status:  # it failed
                        print(f"{name}: left out, {needed} failed", flush=True)
                        del pending[name]
                    continue
                if len(self.running) < self.jobs:
                    del pending[name]
                    self._start(name, words)
            time.sleep(0.3)
        for process in list(self.running.values()):
            os.killpg(process.pid, signal.SIGTERM)

    def _start(self, name: str, words: list[str]) -> None:
        path = RECIPE / EXP / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as log:
            process = subprocess.Popen(
                words,
                cwd=RECIPE,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.running[name] = process
        threading.Thread(target=self._wait, args=(name, process), daemon=True).start()

    def _wait(self, name: str, process: subprocess.Popen[bytes]) -> None:
        begun = time.monotonic()
        status = process.wait()
        print(f"{name}: status {status}, {time.monotonic() - begun:.0f} s", flush=True)
        self.status[name] = status
        del self.running[name]


def main() -> None:
    """Run what is missing, then print the error rates."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=1e9, metavar="SECONDS")
    parser.add_argument("--cuda", action="store_true", help="train on the GPU")
    parser.add_argument("--pretrain_epochs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch_bins", type=int, default=800_000)
    parser.add_argument("--students", nargs="+", default=STUDENTS)
    args = parser.parse_args()
    students = [student.split(":") for student in args.students]
    run = [
        *("./run.sh", "--expdir", EXP, "--asr_stats_dir", "exp/asr_stats_raw_en_char"),
        *("--ngpu", str(int(args.cuda)), "--test_sets", "test"),
        *("--stage", "11"),
    ]
    if not os.environ.get("ESPNET_ROOT"):  # ESPnet's own asr.sh has no such option
        run += ["--reuse", "true"]
    shared = f"--num_att_plot 0 --batch_bins {args.batch_bins}"
    items: dict[str, tuple[list[str], str | None]] = {}
    sets = teacher_sets(yaml.safe_load((RECIPE / "conf/pretrain.yaml").read_text()))
    (RECIPE / EXP).mkdir(parents=True, exist_ok=True)
    for teachers in dict.fromkeys(teachers for _, teachers, _ in students):
        if teachers != "scratch":
            config = f"{EXP}/pretrain_{teachers}.yaml"
            (RECIPE / config).write_text(yaml.safe_dump(sets[teachers]))
            options = f"{shared} --max_epoch {args.pretrain_epochs}"
            items[f"pretrain_{teachers}"] = (
                [
                    *run,
                    *("--stop_stage", "11", "--system", "cif"),
                    *("--asr_config", config, "--asr_tag", f"pretrain_{teachers}"),
                    *("--asr_args", options),
                ],
                None,
            )
    for system, teachers, seed in students:
        needed = None if teachers == "scratch" else f"pretrain_{teachers}"
        start = f"{EXP}/asr_{needed}/valid.loss.ave.pth:encoder:encoder"
        options = (
            f"{shared} --max_epoch {args.epochs} --seed {seed} "
            "--keep_nbest_models 3 --scheduler_conf warmup_steps=400"
        )
        name = f"{system}_{teachers}_{seed}"
        items[name] = (
            [
                *run,
                *("--stop_stage", "13", "--system", system, "--asr_tag", name),
                *("--inference_tag", "decoded", "--asr_args", options),
                # Greedy for a transducer: fast, also if it has hardly learned.
                "--inference_args",
                f"--beam_size {1 if system == 'transducer' else 5}",
                *(("--pretrained_model", start) if needed else ()),
            ],
            needed,
        )
    Queue(args.jobs, args.limit).run(items)
    print("\n| student | test CER % | WER % |\n|---|---|---|")
    for system, teachers, seed in students:
        folder = RECIPE / EXP / f"asr_{system}_{teachers}_{seed}/decoded/test"
        rates = []
        for unit in ("cer", "wer"):
            path = folder / f"score_{unit}" / "result.txt"
            sums = sums_of(path) if path.is_file() else None
            rates.append(sums[-2] if sums else "–")
        print(f"| {system}, {teachers}, seed {seed} | {rates[0]} | {rates[1]} |")


if __name__ == "__main__":
    sys.exit(main())
