"""Offsets of the ranks' clocks, measured by messages."""

from time import perf_counter

import numpy as np

from pympi_train.trace.clocks import Reading, offset_from, rounds_of

TRIPS = 16  # of which the shortest counts
TAG = 7


def read_offset(comm, clock=perf_counter):
    """Return the Reading of this rank's clock against that of rank 0.

    Parameters
    ----------
    comm : MPI.Comm
    clock : callable
        Returns seconds.

    Notes
    -----
    Collective. Clocks are compared along a binomial tree: of P ranks, none exchanges
    more than ``16 log2(P)`` pairs of messages of 24 bytes, and all have their offset
    after as many rounds. Errors add up along the tree's branches.
    """
    offset_s = error_s = 0.0
    word = np.zeros(3)
    for other, is_parent in rounds_of(comm.rank, comm.size):
        if is_parent:
            sent_s, answered_s, received_s = [], [], []
            for _ in range(TRIPS):
                sent_s.append(clock())
                comm.Send(word, other, TAG)
                comm.Recv(word, other, TAG)
                received_s.append(clock())
                answered_s.append(float(word[0]))
            offset_s, error_s = offset_from(sent_s, answered_s, received_s)
            offset_s, error_s = offset_s + word[1], error_s + word[2]
        else:
            for _ in range(TRIPS):
                comm.Recv(word, other, TAG)
                word[:] = clock(), offset_s, error_s
                comm.Send(word, other, TAG)
    return Reading(clock(), float(offset_s), float(error_s))
