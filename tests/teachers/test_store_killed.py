"""A store whose writer is killed at any moment loses no complete shard."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Kills itself at the n-th call of one function, then dumps to the end, for every n.
KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
from espnet_cif_hkd.teachers.base import TextTeacher
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.store import header, reader as store, shard, writer as dump

class Fake(TextTeacher):
    payload = Payload("tokens", 2)
    open = describe = fingerprint = from_conf = None
    def features(self, sequences, device):
        rows = [[float(sum(ids)), float(n)] for ids in sequences
                for n in range(len(ids) + 1)]
        return torch.tensor(rows)

sequences = [list(range(n % 7, n % 7 + n % 5)) for n in range(16)]
root = Path(sys.argv[1])

def run(folder, kill_at=None):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    if kill_at:
        module, name, when = kill_at
        original, count = getattr(module, name), [0]
        def wrapped(*args, **kwargs):
            count[0] += 1
            if count[0] == when:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)
        setattr(module, name, wrapped)
    with dump._locked(folder):
        reader = store.StoreReader(folder, Fake.payload)
        dump.dump_targets(
            reader, folder, lambda: sequences, Fake(), "cpu", shard_bytes=64)
    os._exit(0)

def read(folder):
    reader = store.StoreReader(folder, Fake.payload)
    places = reader.find([Fake().key(ids) for ids in sequences])
    return [reader.read([place])[1]["vectors"] for place in places]

n_kills = 0
for module, name in [(os, "fsync"), (os, "replace"), (shard, "write_bytes")]:
    for when in range(1, 100):
        folder = root / f"{name}-{when}"
        status = run(folder, (module, name, when))
        if status == 0:
            break
        assert status == signal.SIGKILL, status
        n_kills += 1
        for path in store.shard_paths(folder):
            shard.Shard(path, Fake.payload)
        assert run(folder) == 0
        assert not list(folder.glob(".*.part"))
        for ids, rows in zip(sequences, read(folder)):
            expected = [[sum(ids), n] for n in range(len(ids) + 1)]
            assert np.array_equal(rows, np.array(expected, dtype=np.float16))
    else:
        raise AssertionError(f"{name} never ran out")
print("kills", n_kills)
"""


@pytest.mark.slow
def test_kill_minus_nine_at_any_moment(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 12
