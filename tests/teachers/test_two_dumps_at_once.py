"""Two trainings that begin together share a store: the second one waits."""

import logging
import threading
import time

import pytest
import torch
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.teachers.store import writer as dump
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig


@pytest.mark.parametrize("filled", [True, False])
def test_the_second_waits_then_writes_what_is_missing(filled, tmp_path, caplog):
    plm = build_tiny_bert(tmp_path / "plm")
    tokens = ["<blank>", "<unk>", *"abcdefghijklmnop", "<sos/eos>"]
    store, sentences = tmp_path / "store", [[2, 3, 4], [5, 6]]

    def fill() -> int:
        teacher = OnlineTeacher(TeacherConfig(str(plm), HIDDEN), tokens)
        found = dump.dump_store(store, lambda: sentences, teacher, torch.device("cpu"))
        return found.n_items

    if filled:
        assert fill() == len(sentences)
    counts: list[int] = []
    second = threading.Thread(target=lambda: counts.append(fill()), daemon=True)
    with caplog.at_level(logging.INFO), dump._locked(store):
        second.start()
        deadline = time.monotonic() + 300
        while "waiting for another process" not in caplog.text:
            assert second.is_alive(), "it did not wait"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not counts
    second.join(300)
    assert counts == [0 if filled else len(sentences)]
