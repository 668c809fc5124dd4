"""Byte strings of any length from rank 0 to all, and from all to rank 0."""

import numpy as np

from pympi_train.comm.collectives import broadcast

MAX_BYTES = 2**31 - 1  # that MPI's displacements can tell


def bytes_of_root(comm, data):
    """Return rank 0's ``data``, bytes, on every rank. Collective."""
    n_bytes = np.array([len(data)], np.int64)
    broadcast(comm, n_bytes)
    block = np.empty(int(n_bytes[0]), np.uint8)
    if comm.rank == 0:
        block[:] = np.frombuffer(data, np.uint8)
    broadcast(comm, block)
    return block.tobytes()


def gathered_bytes(comm, data):
    """Return the ``data``, bytes, of all ranks in rank order, on rank 0.

    Returns
    -------
    list of bytes, or None
        None on the other ranks.

    Notes
    -----
    Collective. Where the sum is larger than a call of MPI can gather, rank 0 receives
    from one rank after another.
    """
    sizes = np.empty(comm.size, np.int64) if comm.rank == 0 else None
    comm.Gather(np.array([len(data)], np.int64), sizes, root=0)
    total = np.array([0 if sizes is None else sizes.sum()], np.int64)
    broadcast(comm, total)
    own = np.frombuffer(data, np.uint8)
    if total[0] > MAX_BYTES:
        return _received(comm, own, sizes)
    if comm.rank != 0:
        comm.Gatherv(own, None, root=0)
        return None
    block = np.empty(int(total[0]), np.uint8)
    starts = np.cumsum(sizes) - sizes
    counts = sizes.astype(np.int32), starts.astype(np.int32)
    comm.Gatherv(own, [block, counts], root=0)
    return [block[a : a + n].tobytes() for a, n in zip(starts, sizes)]


def _received(comm, own, sizes):
    if comm.rank != 0:
        comm.Send(own, dest=0)
        return None
    found = [own.tobytes()]
    for source in range(1, comm.size):
        block = np.empty(int(sizes[source]), np.uint8)
        comm.Recv(block, source=source)
        found.append(block.tobytes())
    return found
