"""Stored teacher vectors: equal to online ones, safe against kills and full disks."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hkd_batch import CHARS, CPU, STUDENT, batch, encode
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.distill import HKDCriterion
from espnet_cif_hkd.distill.check import check_teacher
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.store import writer as dump
from espnet_cif_hkd.teachers.store.reader import (
    StoredTeacher,
    StoreReader,
    shard_paths,
)
from espnet_cif_hkd.teachers.store.shard import Shard
from espnet_cif_hkd.teachers.store.writer import dump_store, estimate_missing
from espnet_cif_hkd.teachers.text import plm as teacher
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig

TOKENS, PAIRS = Payload("tokens", HIDDEN), Payload("tokens", 2)
TEXTS = ["THE CAT IS PLAYING", "IT'S É", "", "THE CAT", "PLAY IT", "THE CAT"]
SMALL = 300  # bytes of a shard: 12 vectors, one or two sentences


SEQUENCES = [encode(t) for t in TEXTS]


@pytest.fixture(scope="module")
def plm(tmp_path_factory):
    return build_tiny_bert(tmp_path_factory.mktemp("plm"))


@pytest.fixture
def online(plm):
    return OnlineTeacher(TeacherConfig(plm, HIDDEN), CHARS)


def fill(folder, online, sequences=SEQUENCES, shard_bytes=SMALL):
    return dump_store(folder, lambda: sequences, online, CPU, shard_bytes)


def stored(folder, online, **changes):
    config = TeacherConfig(
        **{"name": online.config.name, "dim": HIDDEN, "layer": -1, **changes}
    )
    return StoredTeacher(str(folder), OnlineTeacher(config, CHARS))


def test_stored_equals_online_within_float16(tmp_path, online):
    report = fill(tmp_path / "store", online)
    assert report.n_items == 5 and len(shard_paths(tmp_path / "store")) > 1
    assert report.n_rows == sum(len(encode(t)) + 1 for t in set(TEXTS))
    got = stored(tmp_path / "store", online).features(SEQUENCES, CPU)
    expected = online.features(SEQUENCES, CPU)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=2**-10, atol=1e-5)
    # float16 of what was computed, up to the PLM's own rounding beside companions.
    assert torch.equal(got, got.half().float())
    none = stored(tmp_path / "store", online).features([], CPU)
    assert none.shape == (0, HIDDEN)


def test_criterion_with_a_store_opens_no_plm(tmp_path, online, monkeypatch):
    fill(tmp_path / "store", online)
    taps = batch(["THE CAT"])
    results = []
    for store in (None, str(tmp_path / "store")):
        torch.manual_seed(0)
        criterion = HKDCriterion(STUDENT, online.config.name, HIDDEN, store).eval()
        results.append(criterion(taps).losses)
        monkeypatch.setattr(teacher, "open_teacher", None)
    for name, loss in results[0].items():
        torch.testing.assert_close(results[1][name], loss, rtol=1e-2, atol=1e-2)


def test_a_second_dump_adds_what_is_missing(tmp_path, online, monkeypatch):
    fill(tmp_path, online, SEQUENCES[:3])
    before = {p: p.read_bytes() for p in shard_paths(tmp_path)}
    assert fill(tmp_path, online).n_items == 2
    after = {p: p.read_bytes() for p in shard_paths(tmp_path)}
    assert len(after) > len(before) and before.items() <= after.items()
    # A complete store needs no PLM.
    monkeypatch.setattr(teacher, "open_teacher", None)
    other = OnlineTeacher(online.config, CHARS)
    assert fill(tmp_path, other).n_items == 0
    stored(tmp_path, online).features(SEQUENCES, CPU)


def test_a_missing_sentence_is_named(tmp_path, online):
    fill(tmp_path, online)
    with pytest.raises(UserError, match=r"sentence 'the dog'.*cli.dump_teacher"):
        stored(tmp_path, online).features([*SEQUENCES, encode("THE DOG")], CPU)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"layer": 1}, "made for layer 2, but the configuration asks for 1"),
        ({"layer": -2}, "made for layer 2, but the configuration asks for -2"),
        (
            {"name": "other/plm", "revision": "a" * 40},
            "made for teacher name .*, but .* asks for other/plm, whose files are not",
        ),
        ({"dim": 13}, "made for teacher_dim 12, but the configuration asks for 13"),
        ({"case": "keep"}, "made for case auto, but the configuration asks for keep"),
        ({"dtype": "bfloat16"}, "made for teacher_dtype float32, but .* bfloat16"),
    ],
)
def test_a_store_of_another_teacher_is_refused(tmp_path, online, changes, match):
    fill(tmp_path, online)
    with pytest.raises(UserError, match=match):
        stored(tmp_path, online, **changes).features(SEQUENCES, CPU)


def test_a_store_of_other_tokens_is_refused(tmp_path, online):
    fill(tmp_path, online)
    swapped = [*CHARS[:3], "B", "A", *CHARS[5:]]
    with pytest.raises(UserError, match="made for another token list"):
        StoredTeacher(str(tmp_path), OnlineTeacher(online.config, swapped)).open()
    with pytest.raises(UserError, match=r"token type char, .* asks for word"):
        other = OnlineTeacher(online.config, CHARS, "word")
        StoredTeacher(str(tmp_path), other).open()
    conf = {"teacher": online.config.name, "teacher_dim": HIDDEN, "layer": 0}
    conf["teacher_store"] = str(tmp_path)
    with pytest.raises(UserError, match="made for layer 2"):
        check_teacher(conf, CHARS)
    assert check_teacher({**conf, "layer": -1}, CHARS).store == "present"


def test_a_store_of_other_weights_is_not_mixed(tmp_path, online):
    name = build_tiny_bert(tmp_path / "plm", seed=1)
    first = OnlineTeacher(TeacherConfig(name, HIDDEN), CHARS)
    fill(tmp_path / "store", first, SEQUENCES[:1])
    build_tiny_bert(tmp_path / "plm", seed=2)
    second = OnlineTeacher(TeacherConfig(name, HIDDEN), CHARS)
    with pytest.raises(UserError, match="made with other weights"):
        fill(tmp_path / "store", second)


def test_a_missing_or_damaged_store_is_refused(tmp_path, online):
    with pytest.raises(UserError, match=r"no header.json in it; run: .*dump_teacher"):
        stored(tmp_path / "none", online).open()
    fill(tmp_path, online)
    path = shard_paths(tmp_path)[0]
    data = path.read_bytes()
    for cut in (0, 10, 60, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(
            UserError, match=r"shard-00000.safetensors: this shard is damaged"
        ):
            stored(tmp_path, online).open()
    path.write_bytes(data + b"x")
    with pytest.raises(UserError, match="damaged"):
        stored(tmp_path, online).open()
    path.write_bytes(data)
    header = json.loads((tmp_path / "header.json").read_text())
    (tmp_path / "header.json").write_text(json.dumps({**header, "format": 99}))
    with pytest.raises(UserError, match="format 99 is unknown"):
        stored(tmp_path, online).open()
    (tmp_path / "header.json").write_text("{")
    with pytest.raises(UserError, match=r"header.json: is damaged"):
        stored(tmp_path, online).open()
    (tmp_path / "header.json").unlink()
    with pytest.raises(UserError, match=r"has shards but no header.json"):
        fill(tmp_path, online)


def contents(folder):
    """Features of all sentences of a store by their keys."""
    result = {}
    for path in shard_paths(Path(folder)):
        shard = Shard(path, TOKENS)
        for place, key in enumerate(shard.keys()):
            assert key not in result
            begin, end = shard.find(place, key.ljust(16, b"\0"))
            result[bytes(key)] = np.empty((end - begin, HIDDEN), "<f2")
            shard.read("vectors", begin, result[bytes(key)])
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "call"),
    [("fsync", n) for n in range(9)]
    + [("replace", n) for n in range(5)]
    + [("write", n) for n in range(4)],
)
def test_a_full_disk_loses_nothing(tmp_path, online, monkeypatch, function, call):
    """The n-th use of the disk fails; the next run completes the same store."""
    fill(tmp_path / "complete", online)
    count = 0

    def full(*args):
        nonlocal count
        count += 1
        if count > call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*args)

    with monkeypatch.context() as patch:
        if function == "write":
            original = Shard.write
            patch.setattr(Shard, "write", staticmethod(full))
        else:
            original = getattr(os, function)
            patch.setattr(os, function, full)
        try:
            fill(tmp_path / "store", online)
            assert count <= call
        except UserError as e:
            assert "disk is full" in str(e) and "run the same command again" in str(e)
        kept = {p.name: p.read_bytes() for p in shard_paths(tmp_path / "store")}
    assert not list((tmp_path / "store").glob(".*.tmp"))
    fill(tmp_path / "store", online)
    for name, data in kept.items():
        assert (tmp_path / "store" / name).read_bytes() == data
    complete, resumed = contents(tmp_path / "complete"), contents(tmp_path / "store")
    assert complete.keys() == resumed.keys()
    for key, rows in complete.items():
        np.testing.assert_allclose(resumed[key], rows, rtol=2**-9, atol=1e-3)


def test_too_small_a_disk_is_refused_before_writing(tmp_path, online, monkeypatch):
    free = type("Usage", (), {"free": 10 << 20})
    monkeypatch.setattr(dump.shutil, "disk_usage", lambda _: free)
    with pytest.raises(UserError, match="1 MiB are to be written, but only 10 MiB"):
        fill(tmp_path, online)
    assert not (tmp_path / "header.json").exists() and online._opened is None


def test_vectors_beyond_float16_are_refused(tmp_path, online, monkeypatch):
    monkeypatch.setattr(
        online,
        "features",
        lambda s, d: torch.full((sum(map(len, s)) + len(s), HIDDEN), 1e5),
    )
    with pytest.raises(UserError, match="do not fit float16"):
        fill(tmp_path, online)


def test_estimate_is_exact_below_and_close_above_its_limit(
    tmp_path, monkeypatch, online
):
    sequences = [[n % 1000, n % 7] for n in range(9000)]
    reader = StoreReader(tmp_path, TOKENS)
    exact = estimate_missing(sequences, reader, online)
    assert (exact.n_items, exact.n_rows) == (7000, 21000)
    monkeypatch.setattr(dump, "_SAMPLE_LIMIT", 1000)
    estimate = estimate_missing(sequences, reader, online)
    assert abs(estimate.n_items - 7000) < 0.15 * 7000


def test_keys_that_begin_alike_are_distinguished(tmp_path):
    """The index knows eight bytes of a key; zero bytes at its end count, too."""
    heads, tails = (b"\0" * 8, b"a" * 8), (b"\0" * 8, b"b" + b"\0" * 7, b"c" * 8)
    keys = [head + tail for head in heads for tail in tails]
    for number, some in enumerate((keys[::2], keys[1:4:2])):
        rows = {k: np.full((keys.index(k) + 1, 2), keys.index(k), "<f2") for k in some}
        items = {key: {"vectors": array} for key, array in rows.items()}
        Shard.write(tmp_path / f"shard-{number:05d}.safetensors", items)
    reader = StoreReader(tmp_path, PAIRS)
    *places, missing = reader.find(keys)
    assert missing is None
    for n, place in enumerate(places):
        sizes, arrays = reader.read([place])
        assert arrays["vectors"].tolist() == [[n, n]] * (n + 1) and sizes == [n + 1]
    path = tmp_path / "shard-00002.safetensors"
    Shard.write(path, {keys[5]: {"vectors": np.zeros((4, 2), "<f2")}})
    reader.add([path])
    assert reader.find(keys)[5] == (2, 0, 4) and reader.find([]) == []


@pytest.mark.parametrize("window", [1, 30, 1 << 21])
def test_a_dump_looks_each_sentence_up_once(tmp_path, online, monkeypatch, window):
    """Repeats of a chunk are known without a search, whatever has been written."""
    monkeypatch.setattr(dump, "_WINDOW_ROWS", window)
    n_keys, find = 0, StoreReader.find

    def counted(self, keys):
        nonlocal n_keys
        n_keys += len(keys)
        return find(self, keys)

    monkeypatch.setattr(StoreReader, "find", counted)
    assert fill(tmp_path, online, SEQUENCES * 3).n_items == 5
    assert len(contents(tmp_path)) == 5
    assert n_keys == 2 * 3 * len(SEQUENCES)  # for the estimate, and for the dump


def test_a_slow_teacher_loses_little(tmp_path, online, monkeypatch):
    """What it has computed is in the store before its shard is full."""
    monkeypatch.setattr(dump, "_SAVE_SECONDS", -1.0)
    monkeypatch.setattr(online, "run_rows", 10, raising=False)
    targets, calls = online.targets, []

    def third_fails(items, device):
        calls.append(len(items))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return targets(items, device)

    monkeypatch.setattr(online, "targets", third_fails)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, online, shard_bytes=1 << 20)
    kept = len(contents(tmp_path))
    assert 0 < kept == sum(calls[:2])
    assert fill(tmp_path, online, shard_bytes=1 << 20).n_items == 5 - kept
    assert len(contents(tmp_path)) == 5
