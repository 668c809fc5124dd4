"""The ranks of a pool: their nodes, GPUs and memory."""

import pytest

from pympi_train.pool import machine


@pytest.mark.mpi
def test_nodes_and_memory_are_those_that_the_ranks_tell(comm, monkeypatch):
    class Node:
        """Even ranks share a node, and odd ones."""

        def __init__(self):
            self.Free = lambda: None

        def allreduce(self, rank, op):
            return rank % 2

    class Ranks:
        """The ranks of ``comm``, on two nodes."""

        rank, size = comm.rank, comm.size
        Allgather, Allgatherv = comm.Allgather, comm.Allgatherv

        def Split_type(self, *args):
            return Node()

    monkeypatch.setattr(machine, "available_bytes", lambda: 100 + comm.rank % 2)
    monkeypatch.setattr(machine.gpu, "is_installed", lambda: False)
    found = machine.machine_of(Ranks())
    assert found.nodes == [rank % 2 for rank in range(comm.size)]
    assert found.memory == [100, 101][: comm.size]
    assert found.gpus == [None] * comm.size
