"""Ranks of this node whose process has ended, although the program goes on."""

import os
import time

from pympi_train.comm.watch.journal import process

LOOK_S = 2.0  # between two looks: 10 us for each rank of the node
ENDED = "", "Z", "X"  # states: unknown to the kernel, or not yet taken leave of


class Neighbours:
    """The other ranks of a communicator on this node.

    A launcher that does not end all ranks when one is killed (``mpirun
    --enable-recovery`` of Open MPI) tells nobody. Here they look at each other's
    processes.

    Parameters
    ----------
    comm : MPI.Intracomm

    Notes
    -----
    Making it is collective. Ranks whose processes cannot be seen from this one, as
    those of another container, are left out.
    """

    def __init__(self, comm):
        from mpi4py import MPI

        node = comm.Split_type(MPI.COMM_TYPE_SHARED)
        try:
            own = comm.rank, os.getpid(), process(os.getpid())[1]
            found = node.allgather(own)
        finally:
            node.Free()
        self._left = {
            rank: (pid, born)
            for rank, pid, born in found
            if rank != comm.rank and born and process(pid)[1] == born
        }
        self._looked_s = time.monotonic()

    def ended(self):
        """Return the ranks whose process has ended since the last look."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return []
        self._looked_s = now_s
        found = [rank for rank, about in self._left.items() if _has_ended(*about)]
        for rank in found:
            del self._left[rank]
        return found


def _has_ended(pid, born):
    state, start = process(pid)
    return start != born or state in ENDED
