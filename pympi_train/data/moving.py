"""Moving rows between ranks."""

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.comm.checks import require_equal
from pympi_train.comm.collectives import reduced
from pympi_train.comm.messages import numbers_of_ranks

MAX_ROWS = 2**30  # per call: MPI counts rows in 32 bits


def moved(array, old, new, comm):
    """Return this rank's rows after moving them from cuts ``old`` to cuts ``new``.

    Parameters
    ----------
    array : ndarray or CSR, shape (old[rank + 1] - old[rank], ...)
        This rank's rows, with the same dtype and width on all ranks.
    old, new : list of int, length P + 1
        Rank r has the rows from ``cuts[r]`` up to ``cuts[r + 1]``.
    comm : MPI.Comm

    Returns
    -------
    ndarray or CSR, shape (new[rank + 1] - new[rank], ...)

    Raises
    ------
    RankMismatchError
        On every rank, if ranks differ in dtype or width.

    Notes
    -----
    Collective (Alltoallv).
    Each row is sent as bytes directly from its old rank to its new rank. A rank holds
    its old and its new rows at the same time.
    """
    from mpi4py import MPI

    if isinstance(array, CSR):
        return _moved_sparse(array, old, new, comm)
    kind = (array.dtype.str, array.shape[1:])
    require_equal(comm, "dtype and width of the rows", kind)
    rank, array = comm.rank, np.ascontiguousarray(array)
    out = np.empty((new[rank + 1] - new[rank], *array.shape[1:]), array.dtype)
    row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
    if row_bytes == 0:
        return out
    row = MPI.BYTE.Create_contiguous(row_bytes).Commit()
    try:
        for low in range(0, old[-1], MAX_ROWS):
            high = min(low + MAX_ROWS, old[-1])
            comm.Alltoallv(
                [*_messages(array, old, new, rank, low, high), row],
                [*_messages(out, new, old, rank, low, high), row],
            )
    finally:
        row.Free()
    return out


def _moved_sparse(x, old, new, comm):
    """Return this rank's sparse rows after moving them; see `moved`. Collective."""
    require_equal(comm, "number of features", x.shape[1])
    x, rank = x.compact(), comm.rank
    counts = moved(x.counts, old, new, comm)
    before = np.cumsum([0, *numbers_of_ranks(comm, x.n_entries)])
    # The entries before each new cut: counted by the rank that had the row after it.
    cuts, at = np.zeros(len(new)), np.array(new)
    mine = (old[rank] <= at) & (at < old[rank + 1])
    cuts[mine] = before[rank] + x.starts[at[mine] - old[rank]]
    cuts = reduced(comm, cuts).astype(np.int64)
    cuts[at >= old[-1]] = before[-1]
    cuts = before.tolist(), cuts.tolist()
    indices, values = (moved(a, *cuts, comm) for a in (x.indices, x.values))
    pointers = np.concatenate(([0], np.cumsum(counts)))
    return CSR.of_pointers(pointers, indices, values, x.shape[1])


def _messages(array, mine, theirs, rank, low, high):
    """Return the bytes of own rows in [low, high), and counts and offsets per rank."""
    start = min(max(mine[rank], low), high)
    stop = min(max(mine[rank + 1], low), high)
    cuts = np.clip(np.array(theirs, dtype=np.int64), start, stop)
    own = array[start - mine[rank] : stop - mine[rank]]
    return own.reshape(-1).view(np.uint8), (np.diff(cuts), cuts[:-1] - start)
