"""A store works where the file system has no locks, as Lustre and NFS may."""

import errno
import fcntl
import logging
from pathlib import Path

import pytest
import torch
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.store import writer as dump
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig


@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_store_is_filled_where_nothing_can_be_locked(
    tmp_path, monkeypatch, caplog, code
):
    def unknown(*args):
        raise OSError(code, "no locks")

    monkeypatch.setattr(fcntl, "flock", unknown)
    plm = str(build_tiny_bert(tmp_path / "plm"))
    teacher = OnlineTeacher(TeacherConfig(plm, HIDDEN), ["<blank>", "<unk>", *"abcd"])
    store = tmp_path / "store"
    with caplog.at_level(logging.WARNING):
        done = dump.dump_store(store, lambda: [[2, 3]], teacher, torch.device("cpu"))
    assert done.n_items == 1
    # Some versions of filelock replace a system call that is missing by a file.
    warned = f"{store / '.lock'} cannot be locked here" in caplog.text
    assert warned or code == errno.ENOSYS
    assert not (store / ".lock").exists()


def test_a_store_that_cannot_be_made_is_named_by_its_option(tmp_path):
    (tmp_path / "file").touch()
    teacher = OnlineTeacher(TeacherConfig("unused", HIDDEN), ["<blank>", "a"])
    with pytest.raises(UserError, match=r"teacher_store .*/store: cannot write to it"):
        dump.dump_store(
            tmp_path / "file/store", lambda: [[1]], teacher, torch.device("cpu")
        )


def test_a_full_disk_is_reported_as_such_where_the_lock_cannot_be_made(
    tmp_path, monkeypatch
):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    teacher = OnlineTeacher(TeacherConfig("unused", HIDDEN), ["<blank>", "a"])
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(UserError, match=r"teacher_store .*/store: the disk is full"):
        dump.dump_store(tmp_path / "store", lambda: [[1]], teacher, torch.device("cpu"))
