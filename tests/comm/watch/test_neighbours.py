"""Ranks whose process has ended, while the others go on."""

import os
import subprocess
import sys

import pytest

from pympi_train.comm.watch import neighbours
from pympi_train.comm.watch.journal import process
from pympi_train.comm.watch.neighbours import Neighbours


class Node:
    """A node of a rank with this process, and of rank 1 with another one."""

    rank = 0

    def __init__(self, pid, born):
        self._found = [(0, os.getpid(), process(os.getpid())[1]), (1, pid, born)]

    def Split_type(self, kind):
        return self

    def allgather(self, own):
        assert own == self._found[0]
        return self._found

    def Free(self):
        pass


@pytest.fixture
def other():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as child:
        yield child
        child.kill()


@pytest.mark.parametrize("is_reaped", [False, True])
def test_a_process_that_was_killed_is_told_once(other, monkeypatch, is_reaped):
    monkeypatch.setattr(neighbours, "LOOK_S", 0.0)
    found = Neighbours(Node(other.pid, process(other.pid)[1]))
    assert found.ended() == []
    other.kill()
    if is_reaped:
        other.wait()
    while not (ended := found.ended()):  # it takes a moment
        pass
    assert ended == [1] and found.ended() == []


@pytest.mark.parametrize("born", [0, 1])
def test_a_process_that_cannot_be_seen_is_left_out(other, monkeypatch, born):
    """Its number is that of another one here, or of none."""
    monkeypatch.setattr(neighbours, "LOOK_S", 0.0)
    assert Neighbours(Node(other.pid, born)).ended() == []


def test_the_kernel_is_not_asked_each_time(other, monkeypatch):
    found = Neighbours(Node(other.pid, process(other.pid)[1]))
    monkeypatch.setattr(neighbours, "process", None)
    assert found.ended() == []


@pytest.mark.mpi(min_size=2)
def test_ranks_see_each_other(comm, monkeypatch):
    monkeypatch.setattr(neighbours, "LOOK_S", 0.0)
    found = Neighbours(comm)
    assert sorted(found._left) == [r for r in range(comm.size) if r != comm.rank]
    assert found.ended() == []
    comm.Barrier()
