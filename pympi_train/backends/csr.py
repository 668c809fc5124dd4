"""Sparse rows: the entries of each row, in arrays that selections of rows share."""

import numpy as np


class SparseRows:
    """What models know of sparse rows, wherever their entries are.

    Attributes
    ----------
    shape : (int, int)
    dtype : dtype
        Of the values.
    ndim : int
        2.
    """

    ndim = 2

    def __init__(self, shape, dtype):
        self.shape, self.dtype = shape, dtype

    def __len__(self):
        return self.shape[0]


class CSR(SparseRows):
    """Sparse rows in compressed form; an entry that is absent is 0.

    Selecting rows copies no entry: the result refers to the same arrays.

    Parameters
    ----------
    starts, stops : ndarray of int64, shape (k,)
        Row i has the entries from ``starts[i]`` up to ``stops[i]``.
    indices : ndarray of int32, shape (e,)
        Columns of the entries, ascending within a row, in [0, n_columns).
    values : ndarray, shape (e,)
        May be a view of a file, as ``indices``.
    n_columns : int
        Columns of the matrix, d.
    """

    def __init__(self, starts, stops, indices, values, n_columns):
        super().__init__((len(starts), int(n_columns)), values.dtype)
        self.starts, self.stops = starts, stops
        self.indices, self.values = indices, values
        self._counts = self._n_entries = None  # once known

    @classmethod
    def of_pointers(cls, pointers, indices, values, n_columns):
        """Return rows with the entries ``pointers[i]`` up to ``pointers[i + 1]``."""
        return cls(pointers[:-1], pointers[1:], indices, values, n_columns)

    def __getitem__(self, rows):
        """Return the rows of a slice, of indices or of a mask."""
        if isinstance(rows, slice) or rows.dtype == bool:
            starts, stops = self.starts[rows], self.stops[rows]
        else:  # as take_rows: faster than an index, and not checked
            starts = self.starts.take(rows, mode="clip")
            stops = self.stops.take(rows, mode="clip")
        return CSR(starts, stops, self.indices, self.values, self.shape[1])

    @property
    def counts(self):  # not a cached_property: those of Python 3.11 take a lock
        """Number of entries of each row, shape (k,), int64."""
        if self._counts is None:
            self._counts = self.stops - self.starts
        return self._counts

    @property
    def n_entries(self):
        """Number of entries of all rows."""
        if self._n_entries is None:
            self._n_entries = int(np.add.reduce(self.counts))
        return self._n_entries

    @property
    def nbytes(self):
        """Bytes of the rows in memory, without entries of other rows."""
        entry_bytes = self.indices.itemsize + self.values.itemsize
        return self.n_entries * entry_bytes + 16 * len(self)

    def where(self):
        """Return which entries the rows have: a slice, or indices, row after row."""
        starts, stops = self.starts, self.stops
        if len(starts) == 0:
            return slice(0, 0)
        if (starts[1:] == stops[:-1]).all():
            return slice(int(starts[0]), int(stops[-1]))
        counts = self.counts
        ends = np.cumsum(counts)
        return np.repeat(starts - ends + counts, counts) + np.arange(ends[-1])

    def compact(self):
        """Return the same rows with arrays of their own entries alone, in order."""
        at, counts = self.where(), self.counts
        pointers = np.concatenate(([0], np.cumsum(counts)))
        parts = self.indices[at], self.values[at]
        return CSR.of_pointers(pointers, *parts, self.shape[1])

    def with_values(self, values):
        """Return rows with other values, one for each of ``self.values``."""
        made_of = self.starts, self.stops, self.indices, values, self.shape[1]
        return CSR(*made_of)

    def row_numbers(self):
        """Return the row of each entry, in the order of `where`."""
        return np.repeat(np.arange(len(self)), self.counts)

    def toarray(self):
        """Return the rows as an array, shape (k, d)."""
        out = np.zeros(self.shape, self.dtype)
        at = self.where()
        out[self.row_numbers(), self.indices[at]] = self.values[at]
        return out
