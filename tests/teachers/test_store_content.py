"""A store belongs to a teacher's content, wherever its files are."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.distill.check import check_teacher
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers import content
from espnet_cif_hkd.teachers.store.reader import StoredTeacher
from espnet_cif_hkd.teachers.store.writer import dump_store
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig

CHARS = ["<blank>", "<unk>", "<space>", *"ABCDEFGHIJ", "<sos/eos>"]
SENTENCES = [[3, 4, 5], [6]]
CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"


@pytest.fixture
def plm(tmp_path):
    build_tiny_bert(tmp_path / "plm")
    return tmp_path / "plm"


def of(name, **options):
    return OnlineTeacher(TeacherConfig(str(name), HIDDEN, **options), CHARS)


def dump(folder, name, sentences=SENTENCES):
    return dump_store(folder, lambda: sentences, of(name), CPU).n_items


def change_weights(plm):
    build_tiny_bert(plm, seed=7)


def change_tokenizer(plm):
    path = plm / "tokenizer.json"
    values = json.loads(path.read_text())
    values["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(values))


def change_special_tokens(plm):
    path = plm / "tokenizer_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "sep_token": "[CLS]"}))


def change_config(plm):
    path = plm / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "hidden_act": "relu"}))


def change_kind_of_file(plm):
    from safetensors.torch import load_file

    weights = load_file(plm / WEIGHTS)
    (plm / WEIGHTS).unlink()
    weights["embeddings.LayerNorm.bias"] += 1
    torch.save(weights, plm / "pytorch_model.bin")


def change_weights_but_no_times(plm):
    """As rsync --inplace --times would, into a file of the same size."""
    path, before = plm / WEIGHTS, (plm / WEIGHTS).stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with path.open("r+b") as f:
        f.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        change_weights,
        change_tokenizer,
        change_special_tokens,
        change_config,
        change_kind_of_file,
        change_weights_but_no_times,
    ],
)
@pytest.mark.parametrize("cached", [False, True])
def test_a_teacher_that_has_changed_is_refused(
    tmp_path, plm, change, cached, monkeypatch
):
    """Also where no sentence is missing: by a dump, a check and a training."""
    monkeypatch.setattr(content, "_CACHED_FROM", 0 if cached else 1 << 30)
    store = tmp_path / "store"
    assert dump(store, plm) == 2 and dump(store, plm) == 0
    assert (store / ".files.json").exists() == cached
    change(plm)
    match = r"made with other weights, another tokenizer or another config.json than"
    conf = {"teacher": str(plm), "teacher_dim": HIDDEN, "teacher_store": str(store)}
    for use in (
        lambda: dump(store, plm),
        lambda: dump(store, plm, [*SENTENCES, [9]]),
        lambda: check_teacher(conf, CHARS, "char"),
        lambda: StoredTeacher(str(store), of(plm)).features(SENTENCES, CPU),
    ):
        with pytest.raises(UserError, match=match):
            use()


def spellings(plm, tmp_path):
    """The same teacher under other names."""
    yield f"{plm}/"
    yield f"{plm.parent}/./plm"
    (tmp_path / "link").symlink_to(plm)
    yield tmp_path / "link"
    shutil.copytree(plm, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("a copy")
    yield tmp_path / "copy"
    linked = tmp_path / "snapshot"  # files are links, as in the hub's cache
    linked.mkdir()
    for path in plm.iterdir():
        (linked / path.name).symlink_to(path)
    yield linked


def test_the_spelling_of_a_teacher_does_not_matter(tmp_path, plm, caplog):
    store = tmp_path / "store"
    dump(store, plm)
    for name in spellings(plm, tmp_path):
        assert dump(store, name) == 0
        StoredTeacher(str(store), of(name)).features(SENTENCES, CPU)
    assert dump(store, tmp_path / "copy", [[8]]) == 1
    for path in plm.iterdir():
        os.utime(path)
    assert dump(store, plm) == 0
    plm.rename(tmp_path / "moved")
    assert dump(store, tmp_path / "moved") == 0
    assert "not here" not in caplog.text


def test_a_package_and_a_folder_are_one_teacher(tmp_path, plm, monkeypatch):
    store = tmp_path / "store"
    dump(store, plm)
    about = tmp_path / "site" / "my_plm-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plm\nVersion: 1\n")
    shutil.copytree(plm, tmp_path / "site" / "my_plm")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert dump(store, "pkg://my-plm/my_plm") == 0
    change_weights(tmp_path / "site" / "my_plm")
    with pytest.raises(UserError, match="teacher pkg://my-plm/my_plm has now"):
        dump(store, "pkg://my-plm/my_plm")


def test_a_hub_name_and_a_folder_are_one_teacher(tmp_path, plm, monkeypatch):
    import huggingface_hub.constants

    cache, commit = tmp_path / "hub", "0" * 40
    snapshot = cache / "models--tester--plm" / "snapshots" / commit
    shutil.copytree(plm, snapshot)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    store = tmp_path / "store"
    dump(store, plm)
    hub = of("tester/plm", revision=commit)
    StoredTeacher(str(store), hub).features(SENTENCES, CPU)
    shutil.rmtree(cache)
    with pytest.raises(UserError, match=r"asks for tester/plm, whose files are not"):
        StoredTeacher(str(store), hub).open()


@pytest.mark.parametrize("lost", ["folder", "weights"])
def test_a_store_outlives_its_teacher(tmp_path, plm, lost, caplog):
    store = tmp_path / "store"
    dump(store, plm)
    expected = StoredTeacher(str(store), of(plm)).features(SENTENCES, CPU)
    if lost == "folder":
        shutil.rmtree(plm)
    else:
        (plm / WEIGHTS).unlink()
    with caplog.at_level(logging.WARNING):
        found = StoredTeacher(str(store), of(plm)).features(SENTENCES, CPU)
        assert dump(store, plm) == 0
    assert torch.equal(found, expected)
    assert f"the files of teacher {plm} are not on this machine" in caplog.text
    with pytest.raises(UserError):
        dump(store, plm, [[9]])


def test_large_files_are_read_once(tmp_path, plm, monkeypatch):
    monkeypatch.setattr(content, "_CACHED_FROM", (plm / WEIGHTS).stat().st_size)
    read, hash_ = [], content._hash
    monkeypatch.setattr(content, "_hash", lambda p: read.append(p.name) or hash_(p))
    store = tmp_path / "store"
    dump(store, plm)
    assert read.count(WEIGHTS) == 1
    read.clear()
    dump(store, plm)
    StoredTeacher(str(store), of(plm)).open()
    assert WEIGHTS not in read and "config.json" in read
    assert str(plm) not in (store / ".files.json").read_text()
    # A cache that is damaged is not believed.
    for damage in ("", "[]", '{"a": 1}'):
        (store / ".files.json").write_text(damage)
        dump(store, plm)
    assert read.count(WEIGHTS) == 3


def test_a_cache_that_cannot_be_written_is_left_alone(tmp_path, plm, monkeypatch):
    monkeypatch.setattr(content, "_CACHED_FROM", 0)
    (tmp_path / "file").touch()
    first = of(plm).fingerprint(tmp_path / "file" / "cache")
    assert first == of(plm).fingerprint() and (tmp_path / "file").read_bytes() == b""
    assert isinstance(first, str) and Path(plm).name not in first
