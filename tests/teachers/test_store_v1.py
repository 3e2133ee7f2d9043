"""Stores of version 0.2 are read, compared with their teacher, and continued."""

import hashlib
import json
import logging

import numpy as np
import pytest
import torch
from tiny_bert import HIDDEN, LAYERS, build_tiny_bert
from tiny_teachers import save_teacher

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import sequence_key, token_list_hash
from espnet_cif_hkd.teachers.store.reader import StoredTeacher, shard_paths
from espnet_cif_hkd.teachers.store.writer import dump_store
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig

CHARS = ["<blank>", "<unk>", "<space>", *"thecas你好世界", "<sos/eos>"]
SENTENCES = [[3, 4, 5, 2, 6], [9, 10], []]
CPU = torch.device("cpu")


def write_v1(folder, teacher, sentences=SENTENCES):
    """A store as version 0.2.0 wrote it, byte for byte."""
    folder.mkdir()
    opened = teacher.open()
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(opened.model.state_dict().items()):
        if "pooler" not in name:
            digest.update(name.encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    encoded = opened.tokenizer(" ".join(CHARS), return_offsets_mapping=True)
    digest.update(repr((encoded["input_ids"], encoded["offset_mapping"])).encode())
    header = {
        "format": 1,
        "teacher": teacher.config.name,
        "revision": None,
        "dim": HIDDEN,
        "layer": LAYERS,
        "num_layers": LAYERS,
        "dtype": "float32",
        "case": "auto",
        "token_type": "char",
        "n_tokens": len(CHARS),
        "token_list": token_list_hash(CHARS),
        "fingerprint": digest.hexdigest(),
    }
    (folder / "header.json").write_text(json.dumps(header))
    rows = {
        sequence_key(ids): teacher.features([ids], CPU).half().numpy()
        for ids in sentences
    }
    keys = sorted(rows)
    starts = np.cumsum([0, *(len(rows[k]) for k in keys)], dtype="<i8")
    with open(folder / "shard-00000.bin", "wb") as f:
        f.write(b"espnet_cif_hkd shard 1\n")
        arrays = (
            np.array(keys, "S16"),
            starts,
            np.concatenate([rows[k] for k in keys]),
        )
        for array in arrays:
            head = np.lib.format.header_data_from_array_1_0(array)
            np.lib.format.write_array_header_1_0(f, head)
            f.write(array.tobytes())


@pytest.fixture
def plm(tmp_path):
    return build_tiny_bert(tmp_path / "plm")


def of(name):
    return OnlineTeacher(TeacherConfig(str(name), HIDDEN), CHARS)


def test_an_old_store_is_read(tmp_path, plm, caplog):
    write_v1(tmp_path / "store", of(plm))
    with caplog.at_level(logging.WARNING):
        stored = StoredTeacher(str(tmp_path / "store"), of(plm))
        got = stored.features(SENTENCES, CPU)
    torch.testing.assert_close(
        got, of(plm).features(SENTENCES, CPU), rtol=2**-10, atol=1e-3
    )
    assert "only compared by the next dump_teacher" in caplog.text


def test_a_dump_compares_and_continues_an_old_store(tmp_path, plm, caplog):
    store = tmp_path / "store"
    write_v1(store, of(plm))
    before = (store / "shard-00000.bin").read_bytes()
    more = [*SENTENCES, [6, 7]]
    assert dump_store(store, lambda: more, of(plm), CPU).n_items == 1
    header = json.loads((store / "header.json").read_text())
    assert header["format"] == 2 and header["fingerprint"] == of(plm).fingerprint()
    names = [path.name for path in shard_paths(store)]
    assert names == ["shard-00000.bin", "shard-00001.safetensors"]
    assert (store / "shard-00000.bin").read_bytes() == before
    caplog.clear()
    got = StoredTeacher(str(store), of(plm)).features(more, CPU)
    expected = of(plm).features(more, CPU)
    torch.testing.assert_close(got, expected, rtol=2**-10, atol=1e-3)
    assert not caplog.text
    # From here on as any other store: also by another name.
    (tmp_path / "link").symlink_to(plm)
    assert dump_store(store, lambda: more, of(tmp_path / "link"), CPU).n_items == 0


@pytest.mark.parametrize("what", ["weights", "tokenizer"])
def test_an_old_store_of_a_teacher_that_has_changed_is_refused(tmp_path, plm, what):
    """Also where no sentence is missing."""
    store = tmp_path / "store"
    write_v1(store, of(plm))
    if what == "weights":
        build_tiny_bert(tmp_path / "plm", seed=3)
    else:
        path = tmp_path / "plm" / "tokenizer.json"
        values = json.loads(path.read_text())
        vocab = values["model"]["vocab"]
        vocab["t"], vocab["h"] = vocab["h"], vocab["t"]
        path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="made with other weights"):
        dump_store(store, lambda: SENTENCES, of(plm), CPU)
    assert json.loads((store / "header.json").read_text())["format"] == 1


def test_an_old_store_of_a_sentencepiece_teacher_is_refused(tmp_path):
    """Version 0.2 gave half of a character's vector to the space before it."""
    from tiny_teachers import fast_tokenizer
    from transformers import BertConfig, BertModel

    tokenizer = fast_tokenizer("metaspace-always")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=48,
    )
    folder = save_teacher(tmp_path / "plm", BertModel(config), tokenizer)
    write_v1(tmp_path / "store", of(folder))
    with pytest.raises(UserError, match=r"version 0.2 made it, which aligned the"):
        dump_store(tmp_path / "store", lambda: SENTENCES, of(folder), CPU)


def test_an_old_store_outlives_its_teacher(tmp_path, plm, caplog):
    store = tmp_path / "store"
    write_v1(store, of(plm))
    (tmp_path / "plm").rename(tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        assert dump_store(store, lambda: SENTENCES, of(plm), CPU).n_items == 0
    assert "are not on this machine" in caplog.text


@pytest.mark.parametrize("cut", [0, 10, 60, 200, -1])
def test_a_damaged_old_shard_is_named(tmp_path, plm, cut):
    write_v1(tmp_path / "store", of(plm))
    path = tmp_path / "store" / "shard-00000.bin"
    data = path.read_bytes()
    for broken in (data[:cut], data + b"x"):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"shard-00000.bin: this shard is damaged"):
            StoredTeacher(str(tmp_path / "store"), of(plm)).open()
