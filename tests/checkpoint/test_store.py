"""The checkpoints of a run: numbered, the newest and the best kept."""

import errno
import os

import pytest
from file_calls import Fault, watched
from mpi4py import MPI

from pympi_train.checkpoint import read, store
from pympi_train.checkpoint.durable import naming
from pympi_train.checkpoint.write import write_checkpoint
from pympi_train.errors import DataError, UnreadableError
from pympi_train.flat.state import State


def fill(folder, *steps):
    for step in steps:
        path = store.next_path(folder, step)
        write_checkpoint(State({"step": step}), path, MPI.COMM_SELF)


def names(folder):
    return sorted(os.listdir(folder))


def test_names_are_numbered(tmp_path):
    folder = tmp_path / "a" / "b"
    assert store.entries(folder) == []
    fill(folder, 10, 7, 100)
    found = ["000001-step-10", "000002-step-7", "000003-step-100"]
    assert names(folder) == found
    assert [os.path.basename(entry.path) for entry in store.entries(folder)] == found


def test_newest_and_best_are_kept(tmp_path):
    fill(tmp_path, 1, 2, 3, 4, 5)
    (tmp_path / "notes.txt").write_text("mine")
    store.prune(tmp_path, 2, ["000002-step-2"])
    kept = ["000002-step-2", "000004-step-4", "000005-step-5", "notes.txt"]
    assert names(tmp_path) == kept


def test_damaged_ones_do_not_count(tmp_path):
    fill(tmp_path, 1, 2, 3, 4)
    store.prune(tmp_path, 2, damaged=["000003-step-3"])
    assert names(tmp_path) == ["000002-step-2", "000003-step-3", "000004-step-4"]
    fill(tmp_path, 5)
    store.prune(tmp_path, 2, damaged=["000003-step-3"])
    assert names(tmp_path) == ["000004-step-4", "000005-step-5"]
    store.prune(tmp_path, 1, damaged=names(tmp_path))
    assert names(tmp_path) == ["000004-step-4", "000005-step-5"]


def test_checkpoints_that_the_system_cannot_read(tmp_path, monkeypatch):
    """They may be whole: nothing may be done as if there were none."""
    for step in (1, 2):
        path, texts = store.next_path(tmp_path, step), {"t.txt": "text"}
        write_checkpoint(State({"step": step}), path, MPI.COMM_SELF, texts=texts)
    real, stale = read.hash_file, ["000002"]

    def hash_file(path):
        if any(number in str(path) for number in stale):
            with naming(path, "read"):
                raise OSError(errno.ESTALE, "Stale file handle")
        return real(path)

    monkeypatch.setattr(read, "hash_file", hash_file)
    found, remarks = store.newest(tmp_path, MPI.COMM_SELF)
    assert found.state.values == {"step": 1}
    assert "t.txt: cannot be read: Stale file handle" in remarks[0]
    stale.append("000001")
    with pytest.raises(UnreadableError, match="Stale file handle"):
        store.newest(tmp_path, MPI.COMM_SELF)


def test_what_an_interrupted_write_left_is_removed(tmp_path):
    fill(tmp_path, 1)
    for name in (
        ".000002-step-7.0123abcd.tmp",
        ".000001-step-1.0123abcd.old",
        ".mine.tmp",
    ):
        (tmp_path / name).mkdir()
    store.prune(tmp_path, 1)
    assert names(tmp_path) == [".mine.tmp", "000001-step-1"]


def test_newest_that_is_whole(tmp_path):
    fill(tmp_path, 1, 2, 3)
    (tmp_path / "000003-step-3" / "manifest.json").write_text("{}")
    (tmp_path / "000002-step-2" / "manifest.json").unlink()
    found, remarks = store.newest(tmp_path, MPI.COMM_SELF)
    assert found.state.values == {"step": 1}
    assert "000003-step-3/manifest.json: malformed" in remarks[0]
    assert "000002-step-2: no manifest.json" in remarks[1]
    assert store.newest(tmp_path / "none", MPI.COMM_SELF) == (None, [])


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_error_is_not_taken_for_a_folder_without_checkpoints(
    tmp_path, monkeypatch, number
):
    def listdir(path):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "listdir", listdir)
    monkeypatch.setattr(os.path, "isdir", lambda path: False)  # as after the same error
    with pytest.raises(DataError, match=f"cannot be read: {os.strerror(number)}"):
        store.newest(tmp_path, MPI.COMM_SELF)


def test_folder_that_is_no_checkpoint(tmp_path):
    (tmp_path / "000001-step-1").mkdir()
    found, remarks = store.newest(tmp_path, MPI.COMM_SELF)
    assert found is None and len(remarks) == 1
    with pytest.raises(DataError, match="000001-step-1: cannot be written: it exists"):
        write_checkpoint(State(), tmp_path / "000001-step-1", MPI.COMM_SELF)


def test_checkpoint_that_cannot_be_removed(tmp_path):
    """It is named; others are removed all the same, and the next call tries again."""
    fill(tmp_path, 1, 2, 3)
    with watched(tmp_path, Fault(["rename"], 1, errno.EACCES)):
        left = store.prune(tmp_path, 1)
    assert left == f"{tmp_path}/000001-step-1: cannot be removed: Permission denied"
    assert names(tmp_path) == ["000001-step-1", "000003-step-3"]
    assert store.prune(tmp_path, 1) is None
    assert names(tmp_path) == ["000003-step-3"]
    left = store.prune(tmp_path / "none", 1)
    assert left == f"{tmp_path}/none: cannot be read: No such file or directory"
