"""Groups of rows that do not depend on the number of ranks, and moving rows to them."""

from dataclasses import replace

import numpy as np

from pympi_train.comm.messages import numbers_of_ranks
from pympi_train.comm.sums.tree import (
    leaf_cuts,
    own_leaves,
    require_leaves,
    too_few_leaves,
)
from pympi_train.data.moving import moved
from pympi_train.data.partition import bounds
from pympi_train.data.sources.mapped import MappedRows


def row_cuts(n, n_groups, size):
    """Return the P + 1 cuts of the rows if each rank owns whole groups.

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
    return rows_of_groups(n, n_groups, leaf_cuts(size, n_groups))


def rows_of_groups(n, n_groups, shares):
    """Return the first row of each group of ``shares``, cuts of the groups."""
    return [group * n // n_groups for group in shares]  # as `bounds`


def own_cuts(n, n_groups, rank, size, shares=None):
    """Return the first local row of each group of ``rank``, and the end of the last.

    Rank r owns the groups from ``shares[r]`` up to ``shares[r + 1]``; by default the
    ranks share them evenly.
    """
    if shares is None:
        first, stop = own_leaves(rank, size, n_groups)
    else:
        first, stop = shares[rank : rank + 2]
    cuts = np.array(rows_of_groups(n, n_groups, range(first, stop + 1)))
    return cuts - cuts[0]


def regrouped(source, n_groups, comm, shares=None):
    """Return ``source`` with each row on the rank that owns its group.

    Parameters
    ----------
    source : Source
        Returned unchanged if its rows are already in place, and plain.
    n_groups : int
        Number of groups, V.
    comm : MPI.Comm
        The communicator of the source.
    shares : list of int, length P + 1, optional
        As for `own_cuts`.

    Raises
    ------
    ConfigError
        On every rank, if there are more ranks than groups.

    Notes
    -----
    Collective.
    """
    require_leaves(n_groups, comm)
    starts, are_plain = numbers_of_ranks(comm, source.start, source.is_plain).T
    shares = leaf_cuts(comm.size, n_groups) if shares is None else shares
    old, new = [*starts.tolist(), source.n], rows_of_groups(source.n, n_groups, shares)
    if old == new and are_plain.all():
        return source
    return source.moved(old, new, comm)


def regrouped_rows(rows, keep, n_groups, comm):
    """Return the kept rows of a `Rows`, each on the rank that owns its group.

    Only kept rows are counted in the groups. Features in a file stay there.
    Collective.
    """
    require_leaves(n_groups, comm)
    old = _kept_cuts(keep, comm)
    return _recut(rows, keep, old, row_cuts(old[-1], n_groups, comm.size), comm)


def balanced_rows(rows, keep, comm):
    """Return a `Rows` and its mask of kept rows, moved if ranks keep unlike numbers.

    Conditions and named validation rows may leave most rows to a few ranks. Rows move
    if some rank keeps over 10 % and 8 rows more than the mean, unless no other rank can
    read them. Collective.
    """
    if isinstance(rows.x, MappedRows) and not rows.x.can_move:
        return rows, keep
    old = _kept_cuts(keep, comm)
    if not is_uneven(np.diff(old)):
        return rows, keep
    rows = _recut(rows, keep, old, bounds(old[-1], comm.size), comm)
    return rows, np.ones(rows.stop - rows.start, dtype=bool)


def is_uneven(counts):
    """Return whether a rank has over 10 % and 8 rows more than the mean."""
    return max(counts) * len(counts) > 1.1 * sum(counts) + 8 * len(counts)


def _kept_cuts(keep, comm):
    """Return the cuts of the kept rows, numbered through all ranks. Collective."""
    counts = numbers_of_ranks(comm, np.count_nonzero(keep))
    return np.cumsum([0, *counts]).tolist()


def _recut(rows, keep, old, new, comm):
    """Return the kept rows of a `Rows`, moved from cuts to others. Collective."""
    keep = slice(None) if keep.all() else keep  # no copy if all are kept
    if isinstance(rows.x, MappedRows):
        x = rows.x.moved(old, new, comm)
    else:
        x = moved(rows.x[keep], old, new, comm)
    return replace(
        rows,
        n=old[-1],
        start=new[comm.rank],
        stop=new[comm.rank + 1],
        x=x,
        y=None if rows.y is None else moved(rows.y[keep], old, new, comm),
        weights=(
            None
            if rows.weights is None
            else moved(rows.weights[keep], old, new, comm)
        ),
    )
