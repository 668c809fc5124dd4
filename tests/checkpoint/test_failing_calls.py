"""One rank's N-th call on files fails: all ranks raise its error, nothing else is hurt.

N = 1, 2, ... until a checkpoint is written and an older one removed without a failure.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path

import crash_runs
import pytest
from file_calls import NAMES, Fault, watched

from pympi_train.checkpoint import shares, store
from pympi_train.comm.checks import together
from pympi_train.errors import DataError

MEMORY = "/dev/shm"
OLD, NEW = "000001-step-10", "000002-step-20"
ERRORS = [getattr(errno, f"E{n}") for n in ("NOSPC", "IO", "DQUOT", "STALE", "INTR")]
CASES = {  # which calls count, the errors in turn, whether all later calls fail too
    "one call": (NAMES, ERRORS, False),
    "short writes": (["write"], ["short"], True),
    "disk stays full": (["open", "write", "mkdir"], [errno.ENOSPC], True),
    "disk becomes read-only": (NAMES, [errno.EROFS], True),
}


@pytest.fixture
def folder(comm, mpi_tmp_path, monkeypatch):
    """A folder in memory, if there is one; a checkpoint is in its folder "start"."""
    monkeypatch.setattr(shares, "LEAST_BYTES", 64)  # all ranks write
    memory = contextlib.nullcontext(mpi_tmp_path)
    if comm.rank == 0 and os.access(MEMORY, os.W_OK):
        memory = tempfile.TemporaryDirectory(dir=MEMORY)
    with memory as path:
        path = Path(comm.bcast(path, root=0))
        crash_runs.save(path / "start", 10, comm)
        yield path
        comm.Barrier()


def attempt(directory, comm, fault, by_thread):
    """Write a checkpoint and remove the older one; return the errors of both."""
    watch = watched(directory, fault) if fault is not None else contextlib.nullcontext()
    try:
        with watch:
            crash_runs.save(directory, 20, comm, by_thread)
            return None, store.prune(directory, 1) if comm.rank == 0 else None
    except DataError as error:
        return str(error), None


def check_after(directory, error, left, error_number):
    """What is there is whole, and the next run can write the next checkpoint."""
    from mpi4py import MPI

    visible = sorted(n for n in os.listdir(directory) if not n.startswith("."))
    for name in set(os.listdir(directory)) - {*visible}:
        assert store.LEFT_OVER.fullmatch(name)
    found, remarks = store.newest(directory, MPI.COMM_SELF)
    assert remarks == []
    assert crash_runs.loaded_step(found) == (10 if visible == [OLD] else 20)
    if error is None and left is None:
        assert visible == [NEW]
    else:
        text = error or left
        assert os.strerror(error_number) in text and str(directory) in text
    if visible == [OLD, NEW] and error is None:
        assert "cannot be removed" in left or "cannot be read" in left
    store.prune(directory, 9)
    assert sorted(os.listdir(directory)) == visible
    crash_runs.save(directory, 30, MPI.COMM_SELF)
    assert crash_runs.loaded_step(store.newest(directory, MPI.COMM_SELF)[0]) == 30


def run_all(folder, comm, case, failing, every_error, by_thread):
    """Return the number of attempts until the first one without a failing call."""
    names, errors, lasting = CASES[case]
    n_attempts, hits = 0, 1
    for number in range(1, 200):
        if not hits:
            return n_attempts
        for i in errors if every_error else [errors[number % len(errors)]]:
            directory = folder / f"{number}-{i}"
            if comm.rank == 0:
                shutil.copytree(folder / "start", directory)
            comm.Barrier()
            is_own = comm.rank == failing
            fault = Fault(names, number, i, lasting) if is_own else None
            error, left = attempt(directory, comm, fault, by_thread)
            hits = comm.bcast(fault.hits if is_own else None, root=failing)
            assert comm.allgather(error) == [error] * comm.size
            assert error is None or (hits and i != "short")
            with together(comm):
                if comm.rank == 0:
                    check_after(directory, error, left, i)
                    visible = (directory / NEW).exists()
                    assert error is None or lasting or not visible
            n_attempts += 1
    raise AssertionError("it never passes")


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("failing, n_least", [(0, 25), (1, 5)])
def test_failing_call(comm, folder, failing, n_least):
    assert run_all(folder, comm, "one call", failing, False, False) > n_least


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("case", ["short writes", "disk stays full"])
def test_calls_fail_from_then_on(comm, folder, case, failing):
    run_all(folder, comm, case, failing, False, True)


@pytest.mark.mpi(min_size=3)
@pytest.mark.grid
@pytest.mark.parametrize("by_thread", [True, False])
@pytest.mark.parametrize("failing", [0, 1, 2])
@pytest.mark.parametrize("case", CASES)
def test_failing_call_with_each_error(comm, folder, case, failing, by_thread):
    n_attempts = run_all(folder, comm, case, failing, True, by_thread)
    print(f"{case}, rank {failing}, {by_thread=}: {n_attempts} attempts")
