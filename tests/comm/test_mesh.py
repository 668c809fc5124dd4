"""The world, and the share of a node that a rank may use."""

import os
import sys
import threading

import pytest

from pympi_train.comm import mesh
from pympi_train.comm.watch import abort


@pytest.fixture(autouse=True)
def hooks(monkeypatch):
    """Put the hooks back that a world installs."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(mesh, "_world_masks", {})


@pytest.mark.mpi(min_size=2)
def test_world_has_every_rank(comm):
    world = mesh.world()
    assert (world.rank, world.size) == (comm.rank, comm.size)


@pytest.mark.mpi(min_size=2)
def test_uncaught_exceptions_end_the_job_from_now_on():
    sys.excepthook = sys.__excepthook__
    mesh.world()
    assert sys.excepthook.ends_the_job
    hook = sys.excepthook
    mesh.world()
    assert sys.excepthook is hook  # once is enough


def test_one_rank_needs_no_hook():
    sys.excepthook = sys.__excepthook__
    abort.install()
    assert sys.excepthook is sys.__excepthook__


@pytest.mark.mpi(min_size=2)
def test_share_of_node(comm):
    own, node = mesh.share_of_node(comm)
    assert own == frozenset(os.sched_getaffinity(0))
    assert len(node) == comm.size  # the tests run on one node
    assert comm.allgather(sorted(own)) == [sorted(mask) for mask in node]


@pytest.mark.mpi(min_size=2)
def test_share_of_node_tells_masks_apart(comm, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {comm.rank, 40})
    own, node = mesh.share_of_node(comm)
    assert own == {comm.rank, 40}
    assert node == [frozenset({rank, 40}) for rank in range(comm.size)]


@pytest.mark.mpi(min_size=2)
def test_share_of_node_without_masks(comm, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    own, node = mesh.share_of_node(comm)
    assert own == {0, 1, 2}
    assert node == [own] * comm.size
