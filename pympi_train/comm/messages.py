"""Byte strings of any length from rank 0 to all."""

import numpy as np

from pympi_train.comm.collectives import broadcast


def bytes_of_root(comm, data):
    """Return rank 0's ``data``, bytes, on every rank. Collective."""
    n_bytes = np.array([len(data)], np.int64)
    broadcast(comm, n_bytes)
    block = np.empty(int(n_bytes[0]), np.uint8)
    if comm.rank == 0:
        block[:] = np.frombuffer(data, np.uint8)
    broadcast(comm, block)
    return block.tobytes()
