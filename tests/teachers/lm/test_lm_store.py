"""Stores of labels: equal to the LM's, resumable, refused for another LM."""

import errno
import json
import logging
import pickle
import shutil

import pytest
import torch
from tiny_lm import TOKENS, build_tiny_lm, cycles, encode, train_tiny_lm

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm import espnet
from espnet_cif_hkd.teachers.lm.dump import QUALITY, fill_labels, read_quality
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher
from espnet_cif_hkd.teachers.lm.stored import StoredLM
from espnet_cif_hkd.teachers.store import shard
from espnet_cif_hkd.teachers.store.reader import shard_paths

CPU = torch.device("cpu")
EMPTY: list[int] = []
ITEMS = [*cycles(), EMPTY, encode("a"), encode("?b"), cycles()[0]]
SMALL = 600  # bytes of a shard: about 12 rows


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return train_tiny_lm(tmp_path_factory.mktemp("trained"), cycles(7))


@pytest.fixture
def conf(lm, tmp_path):
    return {"lm": lm, "top_k": 3, "label_store": str(tmp_path / "store")}


def fill(conf, items=ITEMS, **options):
    options.setdefault("shard_bytes", SMALL)
    folder = conf["label_store"]
    return fill_labels(conf, TOKENS, lambda: items, folder, CPU, **options)


def test_stored_labels_equal_the_lms_within_float16(conf, tmp_path):
    quality = fill(conf)
    assert len(shard_paths(tmp_path / "store")) > 1
    assert quality == read_quality(tmp_path / "store") and quality.n_units == 86
    stored = build_lm_teacher(conf, TOKENS)
    assert isinstance(stored, StoredLM)
    expected = build_lm_teacher(conf, TOKENS, stored=False).targets(ITEMS, CPU)
    found = pickle.loads(pickle.dumps(stored)).targets(ITEMS, CPU)
    assert found.sizes == expected.sizes == [len(item) for item in ITEMS]
    assert torch.equal(found.tensors["ids"], expected.tensors["ids"])
    shares = found.tensors["probabilities"]
    assert shares.dtype == torch.float32
    wanted = expected.tensors["probabilities"]
    # Half of a unit in the last place of float16, for the share and for the sum.
    torch.testing.assert_close(shares, wanted, rtol=2**-10, atol=2**-24)
    assert torch.allclose(shares.sum(1), torch.ones(len(shares)), atol=1e-6)
    assert stored.n_rows(ITEMS[0]) == 12 and stored.token_list == tuple(TOKENS)
    described = json.loads((tmp_path / "store/header.json").read_text())
    assert described["payload"] == {"kind": "labels", "width": 3, "coding": "float16"}
    assert described["teacher"]["temperature"] == 3.0


def test_a_store_of_empty_texts_only(conf):
    assert fill(conf, [EMPTY]) is None
    found = build_lm_teacher(conf, TOKENS).targets([EMPTY, EMPTY], CPU)
    assert found.sizes == [0, 0] and found.tensors["ids"].shape == (0, 3)


def test_a_rerun_adds_what_is_missing_and_a_complete_one_opens_no_lm(
    conf, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    fill(conf, ITEMS[:5])
    before = {p: p.read_bytes() for p in shard_paths(tmp_path / "store")}
    first = fill(conf)
    after = {p: p.read_bytes() for p in shard_paths(tmp_path / "store")}
    assert len(after) > len(before) and before.items() <= after.items()
    monkeypatch.setattr(espnet.ESPnetLM, "open", None)
    caplog.clear()
    assert fill(conf) == first
    assert "labels of 0 sentences" in caplog.text and "perplexity" in caplog.text


def test_a_killed_dump_continues(conf, tmp_path, monkeypatch):
    writes = []
    right = shard.write_bytes

    def killed(path, data):
        writes.append(path)
        if len(writes) == 3:
            raise KeyboardInterrupt
        right(path, data)

    monkeypatch.setattr(shard, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        fill(conf)
    assert len(shard_paths(tmp_path / "store")) == 2
    kept = {p: p.read_bytes() for p in shard_paths(tmp_path / "store")}
    monkeypatch.undo()
    assert fill(conf) is not None
    assert (
        kept.items()
        <= {p: p.read_bytes() for p in shard_paths(tmp_path / "store")}.items()
    )
    build_lm_teacher(conf, TOKENS).targets(ITEMS, CPU)


def test_a_full_disk_is_one_line_and_the_next_run_continues(conf, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard, "write_bytes", full)
    with pytest.raises(UserError, match=r"label_store .*: the disk is full; the writ"):
        fill(conf)
    monkeypatch.undo()
    fill(conf)
    build_lm_teacher(conf, TOKENS).targets(ITEMS, CPU)


def test_a_bad_lm_is_refused_before_anything_is_stored(conf, tmp_path):
    conf = {**conf, "lm": build_tiny_lm(tmp_path / "random")}
    with pytest.raises(UserError, match=r"its perplexity on the text is .*, above"):
        fill(conf)
    assert shard_paths(tmp_path / "store") == []
    assert not (tmp_path / "store" / "header.json").exists()


def test_an_lm_of_another_token_list_is_refused(conf, tmp_path):
    conf = {**conf, "lm": build_tiny_lm(tmp_path / "lm", tokens=[*TOKENS, "x"])}
    with pytest.raises(UserError, match="token 12 is 'x' in the LM and nothing in"):
        fill(conf)
    assert shard_paths(tmp_path / "store") == []


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"temperature": 1}, "made for temperature 3.0, but .* asks for 1.0"),
        ({"top_k": 5}, "label_store .*: made for top_k 3, but .* asks for 5"),
        ({"lm_type": "uniform"}, "made for type espnet, but .* asks for uniform"),
    ],
)
def test_a_store_of_other_options_is_refused(conf, changes, match):
    fill(conf, ITEMS[:3])
    other = {**conf, **changes}
    with pytest.raises(UserError, match=match):
        build_lm_teacher(other, TOKENS).check()
    with pytest.raises(UserError, match=match):
        fill(other)


def test_a_store_of_an_lm_that_was_trained_on_is_refused(conf, tmp_path):
    folder = train_tiny_lm(tmp_path / "lm", cycles(7), steps=60)
    fill({**conf, "lm": folder})
    train_tiny_lm(tmp_path / "lm", cycles(7), steps=61)
    with pytest.raises(UserError, match=r"label_store .*: made with other") as e:
        fill({**conf, "lm": folder})
    assert "\n" not in str(e.value)


def test_missing_labels_are_named_with_the_command(conf):
    fill(conf, ITEMS[:3])
    made = build_lm_teacher(conf, TOKENS)
    with pytest.raises(UserError, match=r"sentence 'd d'; run: .*dump_lm_labels with"):
        made.targets([encode("dd")], CPU)
    with pytest.raises(UserError, match=r"no header.json in it; run: .*dump_lm_labels"):
        build_lm_teacher({**conf, "label_store": "none"}, TOKENS).open()


def test_a_complete_store_needs_no_files_of_the_lm(conf, tmp_path, caplog):
    folder = train_tiny_lm(tmp_path / "lm", cycles(7))
    conf = {**conf, "lm": folder}
    first = fill(conf)
    shutil.rmtree(folder)
    assert fill(conf) == first
    assert "is used without checking whether they have changed" in caplog.text
    build_lm_teacher(conf, TOKENS).targets(ITEMS, CPU)
    with pytest.raises(UserError, match=r"lm .*: holds neither valid.loss.ave"):
        fill(conf, [encode("gg")])


def test_without_a_store_the_lm_is_checked(conf, tmp_path):
    build_lm_teacher(conf, TOKENS).check()
    with pytest.raises(UserError, match="is not that of the unit"):
        build_lm_teacher(conf, TOKENS[:-1]).check()


def test_the_counts_of_the_unigram_control_are_made_once(conf, tmp_path):
    path = tmp_path / "counts"
    conf = {**conf, "lm": str(path), "lm_type": "unigram", "top_k": 2}
    quality = fill(conf, counted=lambda: [encode("aab")])
    assert path.read_text() == "a 2\nb 1\n"
    assert quality.perplexity > quality.unigram  # no reason to refuse a control
    found = build_lm_teacher(conf, TOKENS).targets([ITEMS[0]], CPU)
    best = [TOKENS.index("a"), TOKENS.index("b")]
    assert found.tensors["ids"].tolist() == [best] * 12
    fill(conf, counted=lambda: [encode("c")])
    assert path.read_text() == "a 2\nb 1\n"


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_a_damaged_quality_file_is_measured_again(conf, tmp_path, content):
    first = fill(conf)
    (tmp_path / "store" / QUALITY).write_text(content)
    assert fill(conf) == first == read_quality(tmp_path / "store")
