"""Reading a store of teacher vectors, from the page cache.

Batches of 50 sentences, drawn at random, 16 vectors of 768 dimensions each on average:
``this version`` opens shards of safetensors when it needs them, at most 64 at a time;
``version 0.2`` keeps every shard mapped by ``np.memmap``, as it did. Both find the
sentences by their keys, copy the rows and make them float32. ``gather`` leaves the last
step out. Each line is the median of several rounds, in turns.

    python3 benchmarks/store_reader.py [--shards 24] [--sentences 2000]
    python3 benchmarks/store_reader.py --open     # the time to open 5,000 shards
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import describe, in_turns, medians, table

from espnet_cif_hkd.teachers.base import sequence_key
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.store.reader import StoreReader
from espnet_cif_hkd.teachers.store.shard import Shard

DIM, BATCH, ROUNDS = 768, 50, 40


class Mapped:
    """What version 0.2 did: maps of all shards, one index."""

    def __init__(self, paths: list[Path]):
        self.maps, prefixes, self.starts = [], [], []
        for path in paths:
            shard = Shard(path, Payload("tokens", DIM))
            at, shape = shard.layout.arrays["vectors"][0], (shard.layout.n_rows, DIM)
            self.maps.append(np.memmap(path, "<f2", "r", at, shape))
            shape = (len(shard) + 1,)
            self.starts.append(np.memmap(path, "<i8", "r", shard.layout.starts, shape))
            prefixes.append(shard.keys().view(">u8")[::2].astype(np.uint64))
        joined = np.concatenate(prefixes)
        self.order = np.argsort(joined, kind="stable")
        self.prefixes = joined[self.order]
        self.ends = np.cumsum([len(p) for p in prefixes])

    def read(self, keys: list[bytes]) -> np.ndarray:
        wanted = np.array(keys, "S16").view(">u8")[::2].astype(np.uint64)
        parts = []
        for number in self.order[np.searchsorted(self.prefixes, wanted)].tolist():
            shard = int(np.searchsorted(self.ends, number, "right"))
            place = number - (int(self.ends[shard - 1]) if shard else 0)
            begin, end = self.starts[shard][place : place + 2]
            parts.append(self.maps[shard][begin:end])
        return np.concatenate(parts)


def fill(folder: Path, n_shards: int, n_items: int) -> list[bytes]:
    """Write shards of random vectors; return all keys."""
    generator, keys = np.random.default_rng(0), []
    block = generator.standard_normal((40, DIM)).astype("<f2")
    for number in range(n_shards):
        own = [sequence_key([number, n]) for n in range(n_items)]
        sizes = generator.integers(8, 25, n_items).tolist()
        items = {k: {"vectors": block[:s]} for k, s in zip(own, sizes, strict=True)}
        Shard.write(folder / f"shard-{number:05d}.safetensors", items)
        keys += own
    return keys


def throughput(folder: Path, keys: list[bytes]) -> str:
    """MB of float16 a second."""
    reader = StoreReader(folder, Payload("tokens", DIM))
    mapped = Mapped(reader.paths)
    order = np.random.default_rng(1).permutation(len(keys))[: BATCH * ROUNDS]
    batches = [[keys[n] for n in some] for some in order.reshape(-1, BATCH)]

    def new(keys: list[bytes]) -> np.ndarray:
        places = [place for place in reader.find(keys) if place is not None]
        return reader.read(places)[1]["vectors"]

    for batch in batches[:5]:
        assert new(batch).tobytes() == mapped.read(batch).tobytes()
    size = sum(new(batch).nbytes for batch in batches)

    def way(read: Callable[[list[bytes]], np.ndarray], wide: bool) -> None:
        for batch in batches:
            rows = read(batch)
            if wide:
                torch.from_numpy(rows).float()

    ways = {
        "this version, gather": lambda: way(new, False),
        "version 0.2, gather": lambda: way(mapped.read, False),
        "this version": lambda: way(new, True),
        "version 0.2": lambda: way(mapped.read, True),
    }
    seconds = medians(in_turns(ways, 7))
    rows = [[name, f"{size / s / 1e6:,.0f}"] for name, s in seconds.items()]
    return table(["reader", "MB/s of float16"], rows)


def main() -> None:
    """Print what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=24)
    parser.add_argument("--sentences", type=int, default=2000, help="of each shard")
    parser.add_argument("--open", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(describe("safetensors", "numpy") + "\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.open:
            fill(folder, 5000, 20)
            begin = time.perf_counter()
            count = len(StoreReader(folder, Payload("tokens", DIM)))
            seconds = time.perf_counter() - begin
            print(f"{count:,} sentences in 5,000 shards opened in {seconds:.2f} s")
            return
        print(throughput(folder, fill(folder, args.shards, args.sentences)))


if __name__ == "__main__":
    main()
