"""Whenever power is lost, the newest checkpoint is whole; see harness/crash_runs.py."""

import crash_runs
import pytest
from power_loss import Disk

from pympi_train.errors import DataError


def check(tmp_path, events, limit, n_states):
    from mpi4py import MPI

    (tmp_path / "states").mkdir()
    checker = crash_runs.Checker(tmp_path / "states", MPI.COMM_SELF)
    checker.check(events, limit)
    assert checker.n_states >= n_states
    # Nothing, two folders, one checkpoint, two, three, and two again.
    assert checker.n_visible == 7


def test_run_on_one_rank(tmp_path):
    from mpi4py import MPI

    (tmp_path / "recorded").mkdir()
    events = crash_runs.record(tmp_path / "recorded", MPI.COMM_SELF)
    check(tmp_path, events, 50, 500)


@pytest.mark.mpi(min_size=2)
def test_run_whose_ranks_all_write(comm, mpi_tmp_path):
    if comm.rank == 0:
        (mpi_tmp_path / "recorded").mkdir()
    comm.Barrier()
    events = crash_runs.record(mpi_tmp_path / "recorded", comm, by_thread=True)
    if comm.rank == 0:
        writers = {e[1] for e in events if e[0] == "create" and ".safetensors" in e[1]}
        assert len(writers) == 3 * comm.size
        check(mpi_tmp_path, events, 20, 200)


def states(events, tree=None):
    disk = Disk(tree)
    for event in events:
        disk.run(event)
    return list(disk.states(0, 1000))


def test_model_of_names():
    """What is known of a rename without and with an fsync of the folder."""
    calls = [("mkdir", "b"), ("create", "b/x"), ("rename", "b", "c"), ("fsync", "c")]
    found = states(calls[:3])
    assert len(found) == 5
    for tree in ({}, {"b": None}, {"b": None, "b/x": b""}, {"c": None}):
        assert tree in found
    # An fsync of the folder does not make its own name durable.
    assert states(calls) == [{"c": None, "c/x": b""}, {"b": None, "b/x": b""}, {}]
    assert states([*calls, ("fsync", ".")]) == [{"c": None, "c/x": b""}]


def test_model_of_data():
    old, new = b"a" * 700, b"b" * 1500
    calls = [("write", "x", 700, new), ("fsync", "x")]
    found = states(calls[:1], {"x": old})
    assert states(calls, {"x": old}) == [{"x": old + new}]
    assert all(tree["x"][:700] == old for tree in found)
    assert {"x": old} in found and {"x": old + new} in found
    zeros = old + bytes(324) + new[324:]
    assert {"x": zeros} in found  # the first block lacks, the later ones are there
    assert len({len(tree["x"]) for tree in found}) > 100


def test_each_fsync_is_needed(tmp_path):
    """Without any one of those that were recorded, the proof fails."""
    from mpi4py import MPI

    (tmp_path / "recorded").mkdir()
    events = crash_runs.record(tmp_path / "recorded", MPI.COMM_SELF)
    (tmp_path / "states").mkdir()
    checker = crash_runs.Checker(tmp_path / "states", MPI.COMM_SELF)
    for i, event in enumerate(events):
        if event[0] == "fsync":
            with pytest.raises((AssertionError, DataError)):
                checker.check(events[:i] + events[i + 1 :], 12)
                pytest.fail(f"not needed: {event}")
