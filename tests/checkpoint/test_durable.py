"""What a system reports while files are made durable."""

import errno
import os

import pytest
from file_calls import Fault, watched

from pympi_train.checkpoint import durable
from pympi_train.errors import DataError


@pytest.mark.parametrize("name", ["EINVAL", "ENOTSUP", "ENOSYS"])
def test_file_systems_that_cannot_sync_folders(tmp_path, name):
    with watched(tmp_path, Fault(["fsync"], 1, getattr(errno, name), lasting=True)):
        durable.sync_folder(tmp_path)
        with pytest.raises(DataError, match="a: cannot be written"):
            durable.write_file(tmp_path / "a", [b"x"])


def test_name_that_is_not_durable_is_taken_back(tmp_path):
    (tmp_path / "old").mkdir()
    with watched(tmp_path, fault := Fault(["fsync"], 1, errno.EIO)):
        with pytest.raises(DataError, match="cannot be written: Input/output error"):
            durable.rename(tmp_path / "old", tmp_path / "new")
    assert (os.listdir(tmp_path), fault.hits) == (["old"], 1)


def test_write_of_nothing_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda file, data: 0)
    with pytest.raises(DataError, match="a: cannot be written: the system writes no"):
        durable.write_file(tmp_path / "a", [b"x"])


def test_folders_are_made_where_those_above_cannot_be_opened(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    faults = iter([None, None, errno.EACCES, errno.EIO])  # c, b, a, the watched folder

    def observe(call):
        error = next(faults) if call.name == "open" else None
        if error is not None:
            raise OSError(error, os.strerror(error))
        return call.real()

    with watched(tmp_path, observe):
        durable.make_folders(tmp_path / "a" / "b" / "c" / "d")
    assert (tmp_path / "a" / "b" / "c" / "d").is_dir()
    assert list(faults) == []
