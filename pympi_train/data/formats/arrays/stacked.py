"""Rows of several arrays, one below the other, that stay where they are."""

import numpy as np


class StackedRows:
    """Arrays with as many columns, indexed by row as one array.

    Provides the part of ndarray's interface that reading and loading use. The arrays
    are usually views of files.

    Parameters
    ----------
    parts : sequence of ndarray, shape (k_i, d)
        At least one.
    dtype : dtype
        Of returned rows.

    Attributes
    ----------
    shape : (int, int)
    dtype : dtype
    ndim : int
        2.
    """

    ndim = 2

    def __init__(self, parts, dtype):
        self._parts, self.dtype = list(parts), np.dtype(dtype)
        self._starts = np.cumsum([0, *map(len, self._parts)])
        self.shape = int(self._starts[-1]), self._parts[0].shape[1]

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        """Return rows by a slice, indices or a mask; ``[rows, columns]`` likewise."""
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        if isinstance(rows, slice):
            return self._run(*rows.indices(len(self))[:2], columns)
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        width = len(range(*columns.indices(self.shape[1])))
        out = np.empty((len(rows), width), dtype=self.dtype)
        for i in np.unique(owner):
            mine = owner == i
            out[mine] = self._parts[i][rows[mine] - self._starts[i], columns]
        return out

    def _run(self, start, stop, columns):
        """Return successive rows: a view if they are in one part."""
        found = [part[:, columns] for part in self.views(start, stop)]
        rows = found[0] if len(found) == 1 else np.concatenate(found)
        return rows.astype(self.dtype, copy=False)

    def views(self, start, stop):
        """Return successive rows as views of the arrays, at least one."""
        first = max(0, int(np.searchsorted(self._starts, start, side="right")) - 1)
        found = []
        for part, at in zip(self._parts[first:], self._starts[first:]):
            if at >= stop:
                break
            found.append(part[max(start - at, 0) : stop - at])
        return found or [self._parts[0][:0]]
