"""Whether the nodes of a job have enough cores for its ranks."""

import numpy as np

from pympi_train.backends.threads import affinity

MOST_CORES = 4096  # of a node, whose numbers a mask can hold


def is_oversubscribed(comm, cores_per_rank):
    """Return whether some node has fewer cores than its ranks need. Collective."""
    from mpi4py import MPI

    mask = np.zeros(MOST_CORES, np.uint8)
    mask[[core for core in affinity() if core < MOST_CORES]] = 1
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    try:
        node.Allreduce(MPI.IN_PLACE, mask, op=MPI.MAX)
        lacks = node.size * cores_per_rank > int(mask.sum())
    finally:
        node.Free()
    found = np.array([lacks], np.uint8)
    comm.Allreduce(MPI.IN_PLACE, found, op=MPI.MAX)
    return bool(found[0])
