"""A store of any size is read with few descriptors, and errors name their cause."""

import errno
import subprocess
import sys

import numpy as np
import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.store import reader as reading
from espnet_cif_hkd.teachers.store import shard as shards
from espnet_cif_hkd.teachers.store.reader import StoreReader
from espnet_cif_hkd.teachers.store.shard import Shard

PAYLOAD = Payload("tokens", 2)
COUNT = 5000

READ = """
import os, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import numpy as np
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.store.reader import OPEN_SHARDS, StoreReader

count, before = int(sys.argv[2]), len(os.listdir("/proc/self/fd"))
reader = StoreReader(Path(sys.argv[1]), Payload("tokens", 2))
assert len(os.listdir("/proc/self/fd")) <= before + OPEN_SHARDS
order = np.random.default_rng(0).permutation(count).tolist()
for some in (order[:count // 2], order[count // 2:]):
    places = reader.find([n.to_bytes(16, "little") for n in some])
    sizes, arrays = reader.read(places)
    assert sizes == [1] * len(some)
    assert arrays["vectors"][:, 1].tolist() == [n % 100 for n in some]
    assert len(os.listdir("/proc/self/fd")) <= before + OPEN_SHARDS
    assert ".safetensors" not in Path("/proc/self/maps").read_text()
print("read", len(reader))
"""


def write(path, number, n_rows=1):
    rows = np.full((n_rows, 2), number % 100, "<f2")
    Shard.write(path, {number.to_bytes(16, "little"): {"vectors": rows}})


@pytest.mark.slow
def test_five_thousand_shards_under_256_descriptors(tmp_path, monkeypatch):
    # Not through the disk: ten thousand fsyncs take longer than the rest.
    monkeypatch.setattr(
        shards, "write_bytes", lambda path, content: path.write_bytes(content)
    )
    for number in range(COUNT):
        write(tmp_path / f"shard-{number:05d}.safetensors", number)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path), str(COUNT)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["read", str(COUNT)]


@pytest.mark.parametrize("limit", [1, 3])
def test_shards_are_opened_again_in_any_order(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(reading, "OPEN_SHARDS", limit)
    for number in range(7):
        write(tmp_path / f"shard-{number:05d}.safetensors", number, number + 1)
    reader = StoreReader(tmp_path, PAYLOAD)
    order = [6, 0, 3, 3, 1, 5, 0]
    for _ in range(2):
        places = reader.find([n.to_bytes(16, "little") for n in order])
        sizes, arrays = reader.read(places)
        assert sizes == [n + 1 for n in order]
        expected = [n for n in order for _ in range(n + 1)]
        assert arrays["vectors"][:, 0].tolist() == expected
        assert len(reader._open) <= limit


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (errno.EMFILE, "raise ulimit -n"),
        (errno.ENFILE, "close other programs"),
        (errno.EACCES, "correct its permissions"),
        (errno.ENOMEM, "close other programs"),
        (errno.EIO, "fault of the disk or the network"),
        (errno.ESTALE, "fault of the disk or the network"),
    ],
)
@pytest.mark.parametrize("where", ["open", "read"])
@pytest.mark.parametrize("when", ["index", "later"])
def test_a_shard_that_cannot_be_read_now_is_not_called_damaged(
    tmp_path, monkeypatch, code, cure, where, when
):
    for number in range(2):
        write(tmp_path / f"shard-{number:05d}.safetensors", number)

    def fail(*args, **kwargs):
        raise OSError(code, "what the system says")

    reader = StoreReader(tmp_path, PAYLOAD)
    if where == "open":
        monkeypatch.setattr(shards.os, "open", fail)
    else:
        monkeypatch.setattr(shards.os, "pread", fail)
    with pytest.raises(UserError, match=r"shard-0000\d.safetensors: cannot be") as e:
        if when == "index":
            StoreReader(tmp_path, PAYLOAD)
        else:
            reader.find([(1).to_bytes(16, "little")])
    text = str(e.value)
    assert cure in text and "what the system says" in text and "\n" not in text
    assert "delete" not in text and "damaged" not in text


def test_a_shard_that_has_gone_is_named(tmp_path):
    path = tmp_path / "shard-00000.safetensors"
    write(path, 0)
    reader = StoreReader(tmp_path, PAYLOAD)
    path.unlink()
    with pytest.raises(UserError, match="has gone"):
        reader.find([(0).to_bytes(16, "little")])


@pytest.mark.parametrize(
    "payload",
    [Payload("tokens", 3), Payload("frames", 2, "int8"), Payload("labels", 2)],
)
def test_a_shard_of_another_payload_is_refused(tmp_path, payload):
    write(tmp_path / "shard-00000.safetensors", 0)
    with pytest.raises(UserError, match=r"is damaged"):
        StoreReader(tmp_path, payload)


@pytest.mark.parametrize(
    "change",
    [
        {"keys": np.zeros((1, 8), np.uint8)},
        {"starts": np.array([0, 5])},
        {"starts": np.array([0])},
        {"starts": np.array([0, 1], np.int32)},
        {"vectors": np.zeros((1, 2), np.float32)},
        {"vectors": np.zeros((1, 2), np.uint16)},
        {"more": np.zeros((1, 2), "<f2")},
    ],
)
def test_a_shard_of_another_layout_is_refused(tmp_path, change):
    from safetensors.numpy import save_file

    arrays = {
        "keys": np.zeros((1, 16), np.uint8),
        "starts": np.array([0, 1]),
        "vectors": np.zeros((1, 2), "<f2"),
    }
    path = tmp_path / "shard-00000.safetensors"
    save_file(arrays, path)
    assert len(StoreReader(tmp_path, PAYLOAD)) == 1
    save_file({**arrays, **change}, path)
    with pytest.raises(UserError, match="is damaged"):
        StoreReader(tmp_path, PAYLOAD)


def test_any_reader_of_safetensors_reads_a_shard(tmp_path):
    from safetensors.numpy import load_file

    path = tmp_path / "shard-00000.safetensors"
    items = {bytes([n]) * 16: {"vectors": np.full((n, 2), n, "<f2")} for n in (3, 0, 1)}
    Shard.write(path, items)
    arrays = load_file(path)
    assert arrays["keys"].tolist() == [[0] * 16, [1] * 16, [3] * 16]
    assert arrays["starts"].tolist() == [0, 0, 1, 4]
    assert arrays["vectors"].tolist() == [[1, 1]] + [[3, 3]] * 3
