"""Batches out of a rank's rows."""

import numpy as np

from pympi_train.data.sources.base import n_rows


class Feed:
    """Hands out rows of a source as batches of at most ``most`` rows.

    Rows that lie together may be views; others are gathered into workspaces that grow
    to the largest batch seen and are then reused.

    Parameters
    ----------
    source : Source
    most : int
        Most rows a batch: the micro batch.
    y_dtype : dtype, optional
        What the model wants its targets in.

    Raises
    ------
    ValueError
        If the model wants class indices and a target is no whole number.
    """

    def __init__(self, source, most, y_dtype=None):
        self._source = source if y_dtype is None else source.with_targets(y_dtype)
        self._most, self._room, self._capacity = most, None, -1

    def check(self, model):
        """Let ``model`` look at all of this rank's rows once; see `Source.check`."""
        self._source.check(model)

    scale = 1.0  # of the loss: a feed of a GPU multiplies the weights by it

    def weight_of(self, batch):
        """Return the total sample weight of ``batch``; its rows where none is given.

        Of the last batch alone, while it is valid.
        """
        if batch.weights is None:
            return float(len(batch.x))
        return float(batch.weights.sum(dtype=np.float64))

    def announce(self, rows):
        """Say which rows come after those that are asked for next, or None."""

    def fetch_ahead(self):
        """Begin to fetch the rows that were announced, where that takes time."""

    def count(self, rows):
        """Return how many batches ``rows`` make; at least one, maybe without rows."""
        return max(1, -(-n_rows(rows) // self._most))

    def batches(self, rows, n_batches=None):
        """Yield batches over ``rows``.

        Parameters
        ----------
        rows : slice or ndarray, shape (k,), intp
            Local rows.
        n_batches : int, optional
            At least ``count(rows)``, the default; what is missing comes without rows.

        Notes
        -----
        A batch is valid until the next.
        """
        n_batches = n_batches or self.count(rows)
        for index in range(n_batches):
            piece = self._piece(rows, index) if n_batches > 1 else rows
            if isinstance(piece, slice):
                yield self._source.batch(piece)
            else:
                yield self._source.batch(piece, self._reserved(len(piece)))

    def _piece(self, rows, index):
        """Return the rows of batch ``index``, a slice or an array."""
        n = n_rows(rows)
        start = min(index * self._most, n)
        stop = min(start + self._most, n)
        if isinstance(rows, slice):
            return slice(rows.start + start, rows.start + stop)
        return rows[start:stop]

    def _reserved(self, k):
        """Return memory for ``k`` rows or more."""
        if k > self._capacity:
            # Some more: a rank's share of a batch differs by a few rows.
            self._capacity = k + k // 8
            self._room = self._source.room(self._capacity)
        return self._room
