"""Byte strings of any length from one rank to all."""

import numpy as np

from pympi_train.comm.collectives import broadcast


def bytes_of_root(comm, data, root=0):
    """Return the ``data``, bytes, of rank ``root`` on every rank. Collective."""
    n_bytes = np.array([len(data)], np.int64)
    broadcast(comm, n_bytes, root)
    block = np.empty(int(n_bytes[0]), np.uint8)
    if comm.rank == root:
        block[:] = np.frombuffer(data, np.uint8)
    broadcast(comm, block, root)
    return block.tobytes()
