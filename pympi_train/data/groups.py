"""Groups of rows that know no rank, and rows on their way to who owns their group."""

from dataclasses import replace

import numpy as np

from pympi_train.comm.checks import require_equal
from pympi_train.comm.sums.tree import own_leaves, require_leaves, too_few_leaves
from pympi_train.data.dataset import Dataset
from pympi_train.data.partition import bounds

MAX_ROWS = 2**30  # a call: MPI counts rows in 32 bits


def row_cuts(n, n_groups, size):
    """Return where each rank's rows begin if it owns whole groups: P + 1 numbers.

    Group g has the rows from ``g n // V`` up to ``(g + 1) n // V``; rank r owns the
    groups from ``r V // P`` up to ``(r + 1) V // P``.

    Raises
    ------
    ConfigError
        If there are more ranks than groups.

    Examples
    --------
    >>> row_cuts(20, 8, 3)
    [0, 5, 12, 20]
    """
    if size > n_groups:
        raise too_few_leaves(n_groups, size)
    cuts = bounds(n, n_groups)
    return [cuts[own_leaves(rank, size, n_groups)[0]] for rank in range(size)] + [n]


def own_cuts(n, n_groups, rank, size):
    """Return the local row where each group of ``rank`` begins, and its last ends."""
    first, stop = own_leaves(rank, size, n_groups)
    cuts = np.array(bounds(n, n_groups)[first : stop + 1])
    return cuts - cuts[0]


def regrouped(dataset, n_groups, comm):
    """Return ``dataset`` with its rows where their groups are.

    Parameters
    ----------
    dataset : Dataset
        Returned itself if its rows lie so already, and in C order: from another order
        a product of matrices may have other bits.
    n_groups : int
        V.
    comm : MPI.Comm
        That of the dataset.

    Raises
    ------
    ConfigError
        On every rank, if there are more ranks than groups.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    require_leaves(n_groups, comm)
    arrays = (dataset.x, dataset.y, dataset.weights)
    is_plain = all(a is None or _is_plain(a) for a in arrays)
    starts, are_plain = zip(*comm.allgather((dataset.start, is_plain)))
    old, new = [*starts, dataset.n], row_cuts(dataset.n, n_groups, comm.size)
    if old == new and all(are_plain):
        return dataset
    x, y, weights = (None if a is None else moved(a, old, new, comm) for a in arrays)
    return Dataset(x, y, weights=weights, comm=comm)


def _is_plain(array):
    return isinstance(array, np.ndarray) and array.flags.c_contiguous


def regrouped_rows(rows, keep, n_groups, comm):
    """Return the kept ones of ``rows``, a `Rows`, where their groups are.

    Groups are those of the kept rows alone. Collective. A rank that stays away leaves
    the others waiting.
    """
    counts = comm.allgather(int(np.count_nonzero(keep)))
    old = np.cumsum([0, *counts]).tolist()
    require_leaves(n_groups, comm)
    new = row_cuts(old[-1], n_groups, comm.size)
    keep = slice(None) if keep.all() else keep  # no copy where all are kept
    return replace(
        rows,
        n=old[-1],
        start=new[comm.rank],
        stop=new[comm.rank + 1],
        x=moved(rows.x[keep], old, new, comm),
        y=None if rows.y is None else moved(rows.y[keep], old, new, comm),
    )


def moved(array, old, new, comm):
    """Return this rank's rows by the cuts ``new`` of what lies by the cuts ``old``.

    Parameters
    ----------
    array : ndarray, shape (old[rank + 1] - old[rank], ...)
        Of one dtype and width on all ranks.
    old, new : list of int, length P + 1
        Rank r has the rows from ``cuts[r]`` up to ``cuts[r + 1]``.
    comm : MPI.Comm

    Returns
    -------
    ndarray, shape (new[rank + 1] - new[rank], ...)

    Raises
    ------
    RankMismatchError
        On every rank, if ranks differ in dtype or width.

    Notes
    -----
    Collective (Alltoallv). A rank that stays away leaves the others waiting.
    Rows go straight from who has them to who gets them, as bytes; a rank holds its
    old and its new rows at the same time.
    """
    from mpi4py import MPI

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


def _messages(array, mine, theirs, rank, low, high):
    """Bytes of the own rows in [low, high), and which of them are whose."""
    start = min(max(mine[rank], low), high)
    stop = min(max(mine[rank + 1], low), high)
    cuts = np.clip(np.array(theirs, dtype=np.int64), start, stop)
    own = array[start - mine[rank] : stop - mine[rank]]
    return own.reshape(-1).view(np.uint8), (np.diff(cuts), cuts[:-1] - start)
