"""Batches of a rank's rows."""

import copy

import numpy as np

from pympi_train.data.sources.base import n_rows


class Feed:
    """Hands out rows of a source as batches of at most ``most`` rows.

    Contiguous rows may be returned as views. Other rows are gathered into workspaces,
    which grow to the largest batch seen and are then reused.

    Parameters
    ----------
    source : Source
    most : int
        Maximum number of rows per batch: the size of a micro-batch.
    y_dtype : dtype, optional
        Dtype of the targets that the model takes.

    Raises
    ------
    ValueError
        If the model takes class indices and a target is not a whole number.
    """

    def __init__(self, source, most, y_dtype=None):
        if y_dtype is not None:
            source = source.with_targets(y_dtype)
        self._source = copy.copy(source)  # a fit may move the rows of ``source``
        self._most, self._room, self._capacity = most, None, -1

    def check(self, model):
        """Let ``model`` check all of this rank's rows once; see `Source.check`."""
        self._source.check(model)

    scale = 1.0  # loss scale: a GPU's feed multiplies the weights by it

    def weight_of(self, batch):
        """Return the total sample weight of ``batch``; without weights, its row count.

        Only for the last batch, while it is valid.
        """
        if batch.weights is None:
            return float(len(batch.x))
        return float(batch.weights.sum(dtype=np.float64))

    def announce(self, rows):
        """Announce the rows that follow the next requested rows, or None."""

    def fetch_ahead(self):
        """Start fetching the announced rows, if fetching takes time."""

    def count(self, rows):
        """Return the number of batches for ``rows``: at least one, perhaps empty."""
        return max(1, -(-n_rows(rows) // self._most))

    def batches(self, rows, n_batches=None):
        """Yield batches over ``rows``.

        Parameters
        ----------
        rows : slice or ndarray, shape (k,), intp
            Local rows.
        n_batches : int, optional
            At least ``count(rows)``, the default. Additional batches have no rows.

        Notes
        -----
        A batch is valid until the next batch is requested.
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
            # Some spare rows: a rank's share of a batch varies by a few rows.
            self._capacity = k + k // 8
            self._room = self._source.room(self._capacity)
        return self._room
