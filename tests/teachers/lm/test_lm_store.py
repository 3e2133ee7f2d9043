"""Stores of labels: equal to the LM's, resumable, refused for another LM."""

import errno
import json
import logging
import math
import pickle
import re
import shutil
from pathlib import Path

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
SUFFIXES = (".safetensors", ".json")
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
    assert quality == read_quality(tmp_path / "store")
    assert [(name, one.n_units) for name, one in quality.items()] == [("the text", 86)]
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
    assert fill(conf, [EMPTY]) == {}
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


def test_an_lm_that_knows_its_training_text_only_is_refused(conf, tmp_path, caplog):
    """Training and validation text together would hide it."""
    caplog.set_level(logging.INFO)
    train, dev = cycles(7), [ids[::-1] for ids in cycles(2)]
    together = fill({**conf, "label_store": str(tmp_path / "both")}, [*train, *dev])
    assert together["the text"].perplexity < together["the text"].unigram
    caplog.clear()
    texts = {"data/train": lambda: train, "data/dev": lambda: dev}
    with pytest.raises(UserError) as error:
        fill(conf, [*train, *dev], texts=texts)
    shown = re.findall(
        r"on data/(\w+): perplexity (\S+) \(unigram (\S+)\)", caplog.text
    )
    assert [name for name, _, _ in shown] == ["train", "dev"]
    (_, seen, own), (_, unseen, unigram) = shown
    assert float(seen) < float(own) and float(unseen) > float(unigram)
    line = f"its perplexity on data/dev is {unseen}, above the {unigram} of unigram"
    assert line in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "store/header.json").exists()


def test_a_good_lm_is_measured_on_each_text(conf, tmp_path, monkeypatch, caplog):
    """The unigram of the second has counts of the first."""
    caplog.set_level(logging.INFO)
    dev = [encode("bcd"), encode("fgab")]
    texts = {"train": lambda: ITEMS, "none": lambda: [EMPTY], "dev": lambda: dev}
    quality = fill(conf, [*ITEMS, *dev], texts=texts)
    assert {name: one.n_units for name, one in quality.items()} == {
        "train": 86,
        "dev": 7,
    }
    for one in quality.values():
        assert one.perplexity < one.unigram
    counts = [sum(ids.count(n) for ids in ITEMS) for n in range(len(TOKENS))]
    # All tokens but <blank>, <unk> and <sos/eos> are labels.
    total = sum(counts[2:-1]) + len(TOKENS) - 3
    chances = [(counts[n] + 1) / total for ids in dev for n in ids]
    assert quality["dev"].unigram == pytest.approx(math.prod(chances) ** (-1 / 7))
    assert quality == read_quality(tmp_path / "store")
    monkeypatch.setattr(espnet.ESPnetLM, "open", None)
    caplog.clear()
    assert fill(conf, [*ITEMS, *dev], texts=texts) == quality
    assert "on train: perplexity" in caplog.text
    assert "on dev: perplexity" in caplog.text


def test_a_store_with_the_quality_of_all_texts_together_is_complete(
    conf, tmp_path, monkeypatch
):
    """Version 0.3.2 wrote one quality."""
    first = fill(conf)
    path = tmp_path / "store" / QUALITY
    path.write_text(json.dumps(json.loads(path.read_text())["the text"]))
    texts = {"train": lambda: ITEMS, "dev": lambda: ITEMS[:1]}
    with monkeypatch.context() as patch:
        patch.setattr(espnet.ESPnetLM, "open", None)
        assert fill(conf, texts=texts) == first
    texts["dev"] = lambda: [encode("bcd")]
    found = fill(conf, [*ITEMS, encode("bcd")], texts=texts)
    assert list(found) == ["train", "dev"] and found == read_quality(path.parent)


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
        ({"lm": "trained on"}, "label_store .*: made with other weights"),
    ],
)
def test_a_store_of_another_lm_is_never_read_and_filled_again(
    conf, lm, tmp_path, changes, match, caplog
):
    """The checks before a dump accept it, the dump replaces it, with one line."""
    folder = tmp_path / "lm"
    shutil.copytree(lm, folder)
    conf = {**conf, "lm": str(folder)}
    other = {**conf, **changes, "lm": str(folder)}
    fill(conf)
    old = {path: path.read_bytes() for path in shard_paths(tmp_path / "store")}
    if "lm" in changes:
        train_tiny_lm(folder, cycles(7), steps=61)
    stored = build_lm_teacher(other, TOKENS)
    for use in (stored.open, lambda: stored.targets(ITEMS, CPU)):
        with pytest.raises(UserError, match=match) as refused:
            use()
        assert "\n" not in str(refused.value)
    assert stored.is_stale()
    stored.check()
    assert {p: p.read_bytes() for p in shard_paths(tmp_path / "store")} == old
    quality = fill(other)
    lines = [one for one in caplog.messages if "computing all labels again" in one]
    assert len(lines) == 1 and re.search(match, lines[0])
    found = build_lm_teacher(other, TOKENS)
    expected = build_lm_teacher(other, TOKENS, stored=False).targets(ITEMS, CPU)
    assert torch.equal(
        found.targets(ITEMS, CPU).tensors["ids"], expected.tensors["ids"]
    )
    assert not found.is_stale() and quality == read_quality(tmp_path / "store")
    if changes != {"lm_type": "uniform"}:
        assert shard_paths(tmp_path / "store")[0].read_bytes() not in old.values()
    caplog.clear()
    fill(other)
    assert "again" not in caplog.text


def test_a_bad_lm_does_not_replace_a_store(conf, tmp_path):
    fill(conf)
    folder = tmp_path / "store"
    old = {path: path.read_bytes() for path in folder.glob("[!.]*")}
    bad = {**conf, "lm": build_tiny_lm(tmp_path / "random")}
    with pytest.raises(UserError, match=r"its perplexity on the text is .*, above"):
        fill(bad)
    absent = {**conf, "lm": build_tiny_lm(tmp_path / "lm", tokens=[*TOKENS, "x"])}
    with pytest.raises(UserError, match="token 12 is 'x' in the LM and nothing in"):
        fill(absent)
    with pytest.raises(UserError, match="token 12 is 'x' in the LM and nothing in"):
        build_lm_teacher(absent, TOKENS).check()
    assert {path: path.read_bytes() for path in folder.glob("[!.]*")} == old


def test_a_kill_while_a_store_is_replaced_loses_nothing(conf, tmp_path, monkeypatch):
    fill(conf)
    other = {**conf, "temperature": 1}
    unlink, removed = Path.unlink, []

    def killed(path, *args, **kwargs):
        if path.parent == tmp_path / "store" and path.suffix in SUFFIXES:
            removed.append(path)
            if len(removed) == 2:
                raise KeyboardInterrupt
        unlink(path, *args, **kwargs)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        fill(other)
    monkeypatch.undo()
    assert len(removed) == 2
    with pytest.raises(UserError, match=r"made for temperature 3\.0"):
        build_lm_teacher(other, TOKENS).open()
    fill(other)
    build_lm_teacher(other, TOKENS).targets(ITEMS, CPU)


def test_missing_labels_are_named_with_the_command(conf):
    fill(conf, ITEMS[:3])
    made = build_lm_teacher(conf, TOKENS)
    with pytest.raises(UserError, match=r"sentence 'd d'; run: .*dump_teacher with"):
        made.targets([encode("dd")], CPU)
    with pytest.raises(UserError, match=r"no header.json in it; run: .*dump_teacher"):
        build_lm_teacher({**conf, "label_store": "none"}, TOKENS).open()


def test_a_complete_store_needs_no_files_of_the_lm(conf, lm, tmp_path, caplog):
    folder = str(shutil.copytree(lm, tmp_path / "lm"))
    conf = {**conf, "lm": folder}
    first = fill(conf)
    shutil.rmtree(folder)
    assert fill(conf) == first
    assert "is used without checking whether they have changed" in caplog.text
    build_lm_teacher(conf, TOKENS).targets(ITEMS, CPU)
    with pytest.raises(UserError, match=r"lm .*: holds neither valid.loss.ave"):
        fill(conf, [encode("gg")])


def test_counts_that_the_dump_will_make_are_not_missed(conf, tmp_path):
    """Without a store nothing makes them: one line before the training."""
    conf = {**conf, "lm": str(tmp_path / "counts"), "lm_type": "unigram"}
    build_lm_teacher(conf, TOKENS).check()
    direct = build_lm_teacher({**conf, "label_store": None}, TOKENS)
    with pytest.raises(UserError, match=r"counts: the counts .*cli\.prepare_levels$"):
        direct.check()
    fill(conf)
    build_lm_teacher(conf, TOKENS).check()
    direct.check()
    (tmp_path / "counts").write_text("zz 1\n")
    with pytest.raises(UserError, match=r"counts, line 1: 'zz 1' is not a label"):
        build_lm_teacher(conf, TOKENS).check()


def test_without_a_store_the_lm_is_checked(conf, tmp_path):
    build_lm_teacher(conf, TOKENS).check()
    with pytest.raises(UserError, match="is not that of the unit"):
        build_lm_teacher(conf, TOKENS[:-1]).check()


def test_the_counts_of_the_unigram_control_are_made_once(conf, tmp_path):
    path = tmp_path / "counts"
    conf = {**conf, "lm": str(path), "lm_type": "unigram", "top_k": 2}
    (quality,) = fill(conf, counted=lambda: [encode("aab")]).values()
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
