"""Sums of gradients of which each rank has some columns alone."""

import numpy as np

MOST_ELEMENTS = 2**30  # gathered at once: MPI counts them in 32 bits


class ColumnSum:
    """The gradient of the columns that occur in a batch, summed over ranks.

    Parameters
    ----------
    comm : MPI.Comm
    n_columns : int
        Of the whole gradient, below 2^31.
    width : int
        Elements of a column.
    dtype : dtype

    Attributes
    ----------
    columns : ndarray of int32, shape (m,)
        The columns added so far, each once, ascending.
    values : ndarray, shape (m, width)
        Their sums.
    """

    def __init__(self, comm, n_columns, width, dtype):
        self._comm, self._width, self._dtype = comm, width, dtype
        self._n_columns = n_columns
        self.reset()

    def reset(self):
        """Remove all columns."""
        self.columns = np.empty(0, np.int32)
        self.values = np.empty((0, self._width), self._dtype)

    def add(self, columns, values):
        """Add the values of some columns: each once, ascending."""
        if len(self.columns) == 0:
            self.columns, self.values = columns, values
        else:
            self._merge([(self.columns, self.values), (columns, values)])

    def counts(self, n):
        """Return the numbers ``n`` of all ranks: ndarray of int64. Collective."""
        found = np.empty(self._comm.size, np.int64)
        self._comm.Allgather(np.array([n], np.int64), found)
        return found

    def is_cheaper(self, counts):
        """Return whether the columns of all ranks are fewer bytes than a dense sum.

        With ``P`` ranks, a rank receives the others' columns, of index and values; a
        dense sum sends it ``2 (P - 1) / P`` times the gradient.
        """
        total, item_bytes = int(counts.sum()), self._dtype.itemsize
        column_bytes = 4 + self._width * item_bytes
        dense_bytes = 2 * self._n_columns * self._width * item_bytes
        is_possible = total * self._width < MOST_ELEMENTS
        return is_possible and total * column_bytes < dense_bytes

    def sum(self, counts):
        """Add up the columns of all ranks, in rank order: the same bits on every rank.

        Parameters
        ----------
        counts : ndarray
            Columns of each rank, from `counts`.

        Returns
        -------
        int
            Bytes that this rank has sent.

        Notes
        -----
        Collective (two Allgatherv).
        """
        comm, total = self._comm, int(counts.sum())
        if comm.size == 1:
            return 0
        columns = np.empty(total, np.int32)
        values = np.empty((total, self._width), self._dtype)
        comm.Allgatherv(self.columns, [columns, counts])
        own = np.ascontiguousarray(self.values)
        comm.Allgatherv(own, [values, counts * self._width])
        self._merge([(columns, values)])
        n_bytes = columns.itemsize + self._width * values.itemsize
        return int(counts[comm.rank]) * n_bytes * (comm.size - 1)

    def _merge(self, parts):
        """Set the sums of parts, added in their order."""
        columns, values = map(np.concatenate, zip(*parts))
        order = np.argsort(columns, kind="stable")  # merges the sorted parts
        columns = columns[order]
        is_first = np.ones(len(columns), bool)
        np.not_equal(columns[1:], columns[:-1], out=is_first[1:])
        heads = np.flatnonzero(is_first)
        self.columns = columns[heads]
        if len(heads):
            self.values = np.add.reduceat(values[order], heads, axis=0)
        else:
            self.values = values
