"""Time of FOTAQ's recipe with this package's engine and with ESPnet 3.

    python3 benchmarks/espnet3_engine.py --fotaq_archive queen.1c [--utterances 40]

Both train ``cif`` on the same utterances for the same number of epochs and decode the
same 20 utterances, in one process, on the CPU. The second row is the training alone
with more epochs, to separate an epoch from the start-up. CPU seconds depend less on
other jobs than seconds of the clock. Needs ESPnet 202611. Also counts our lines.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from measure import describe, table

ROOT = Path(__file__).resolve().parent.parent
DECODED = 20
OURS = {
    "engine": ["espnet_cif_hkd/recipe"],
    "ESPnet 3": ["espnet_cif_hkd/recipe/espnet3", "espnet_cif_hkd/plugin/espnet3.py"],
}


def timed(words: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; return its seconds of the clock and of the CPU."""
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    wall = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{done.stdout[-3000:]}\n{' '.join(words)} failed")
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return wall, used


def prepare(top: Path, archive: Path, utterances: int) -> tuple[Path, Path]:
    """Lay out both recipes with the same data; return their folders."""
    from espnet_cif_hkd.io.tables import keep_utterances, read_table
    from espnet_cif_hkd.recipe import layout

    old, new = top / "egs2", top / "egs3"
    layout.init(["fotaq", str(old)])
    timed(
        [
            *("bash", "local/data.sh", "--subset", str(utterances)),
            *("--fotaq_archive", str(archive.resolve())),
        ],
        old,
    )
    for name in ("dev", "test"):
        folder = old / "data" / f"{name}_{utterances}"
        keep_utterances(folder, sorted(read_table(folder / "text"))[:DECODED])
    ignored = shutil.ignore_patterns("data", "exp", "downloads", "__pycache__")
    shutil.copytree(ROOT / "egs3/fotaq/esp2_asr", new, ignore=ignored)
    for name in ("data", "downloads"):
        (new / name).symlink_to(old / name)
    return old, new


def engine(folder: Path, utterances: int, epochs: int, *stages: int) -> list[str]:
    """The command of our engine."""
    first, last = stages
    # ESPnet 3 draws neither curves nor attention.
    training = f"--max_epoch {epochs} --num_workers 0 --keep_nbest_models 2"
    training += " --num_att_plot 0 --use_matplotlib false --use_tensorboard false"
    return [
        *("bash", "run.sh", "--system", "cif", "--subset", str(utterances)),
        *("--nj", "1", "--inference_nj", "1", "--asr_tag", f"epochs{epochs}"),
        *("--asr_args", training),
        *("--stage", str(first), "--stop_stage", str(last)),
        *("--test_sets", f"test_{utterances}"),
    ]


def espnet3(folder: Path, utterances: int, epochs: int, *stages: str) -> list[str]:
    """The command of ESPnet 3, after its configurations have been written."""

    def data(name: str) -> dict[str, object]:
        return {
            "name": name,
            "data_src_args": {"folder": f"data/{name}_{utterances}", "fs": 11025},
        }

    name = f"epochs{epochs}"
    confs = {
        name: {
            "defaults": ["training_cif", "_self_"],
            "dataset": {"train": [data("train")], "valid": [data("dev")]},
            "best_model_criterion": [["valid/acc", 2, "max"]],
            "trainer": {"max_epochs": epochs},
        },
        "decode": {
            "defaults": ["inference", "_self_"],
            "dataset": {"test": [data("test")]},
            "model": {"asr_model_file": "${exp_dir}/valid.acc.ave_2best.pth"},
        },
    }
    for file, conf in confs.items():
        (folder / "conf" / f"{file}.yaml").write_text(yaml.safe_dump(conf))
    return [
        *(sys.executable, "run.py", "--training_config", f"conf/{name}.yaml"),
        *("--inference_config", "conf/decode.yaml"),
        *("--metrics_config", "conf/metrics.yaml", "--stages", *stages),
    ]


def lines() -> list[list[object]]:
    """Rows of the table of our lines of Python."""
    counted = {
        name: sum(
            len(file.read_text(encoding="utf-8").splitlines())
            for place in places
            for file in (
                [ROOT / place]
                if place.endswith(".py")
                else sorted((ROOT / place).rglob("*.py"))
            )
        )
        for name, places in OURS.items()
    }
    counted["engine"] -= sum(
        len(file.read_text(encoding="utf-8").splitlines())
        for file in (ROOT / OURS["ESPnet 3"][0]).rglob("*.py")
    )
    return [[name, count] for name, count in counted.items()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fotaq_archive", type=Path, required=True)
    parser.add_argument("--utterances", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--more_epochs", type=int, default=10)
    args = parser.parse_args()
    print(describe())
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        old, new = prepare(Path(name), args.fotaq_archive, args.utterances)
        count = args.utterances
        evaluated = ("train_tokenizer", "collect_stats", "train", "infer", "measure")
        for what, ours, theirs in (
            (
                f"tokens to scores, {args.epochs} epochs",
                engine(old, count, args.epochs, 2, 13),
                espnet3(new, count, args.epochs, *evaluated),
            ),
            (
                f"training alone, {args.more_epochs} epochs",
                engine(old, count, args.more_epochs, 11, 11),
                espnet3(new, count, args.more_epochs, "train"),
            ),
        ):
            figures = [*timed(ours, old), *timed(theirs, new)]
            rows.append([what, *(f"{figure:.0f}" for figure in figures)])
            print(rows[-1], flush=True)
    head = ["", "engine, s", "engine, CPU s", "ESPnet 3, s", "ESPnet 3, CPU s"]
    print(table(head, rows))
    print(table(["", "lines of Python in this package"], lines()))


if __name__ == "__main__":
    main()
