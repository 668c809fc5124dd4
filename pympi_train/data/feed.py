"""Batches out of a rank's rows."""

import numpy as np

from pympi_train.data.batch import Batch


class Feed:
    """Hands out rows of a data set as batches of at most ``most`` rows.

    Rows that lie together are views; others are gathered into workspaces that grow
    to the largest batch seen and are then reused.

    Parameters
    ----------
    dataset : Dataset
        Its rows on this rank.
    most : int
        Most rows a batch: the micro batch.
    ops : module
        Whose ``take_rows`` gathers.
    y_dtype : dtype, optional
        What the model wants its targets in.

    Raises
    ------
    ValueError
        If the model wants class indices and a target is no whole number.
    """

    def __init__(self, dataset, most, ops, y_dtype=None):
        y = dataset.y
        if y_dtype is not None and y is not None:
            y = _converted(y, np.dtype(y_dtype))
        self._arrays = (dataset.x, y, dataset.weights)
        self._most, self._take_rows = most, ops.take_rows
        self._buffers = [None, None, None]
        self._capacity = -1

    def check(self, model):
        """Let ``model`` look at all of this rank's rows once, if it has a ``check``.

        Raises
        ------
        ValueError
            If a row is one that the model cannot take, such as a class index beyond
            its outputs.
        """
        if hasattr(model, "check"):
            model.check(Batch(*self._arrays))

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
        return max(1, -(-_length(rows) // self._most))

    def batches(self, rows, n_batches=None):
        """Yield batches over ``rows``.

        Parameters
        ----------
        rows : slice or ndarray, shape (k,), intp
            Local rows: those of a slice come as views.
        n_batches : int, optional
            At least ``count(rows)``, the default; what is missing comes without rows.

        Notes
        -----
        A batch is valid until the next.
        """
        n = _length(rows)
        cut = self._view if isinstance(rows, slice) else self._gather
        for index in range(n_batches or self.count(rows)):
            start = min(index * self._most, n)
            yield cut(rows, start, min(start + self._most, n))

    def _view(self, rows, start, stop):
        part = slice(rows.start + start, rows.start + stop)
        x, y, weights = self._arrays  # no loop: of small steps these are a part
        return Batch(
            x[part],
            None if y is None else y[part],
            None if weights is None else weights[part],
        )

    def _gather(self, rows, start, stop):
        k = stop - start
        if k > self._capacity:
            self._reserve(k)
        rows, taken = rows[start:stop], []
        for source, buffer in zip(self._arrays, self._buffers):
            if source is not None:
                buffer = buffer[:k]
                self._take(source, rows, buffer)
            taken.append(buffer)
        return Batch(*taken)

    def _take(self, source, rows, out):
        if isinstance(source, np.ndarray):
            self._take_rows(source, rows, out)
        else:  # not in memory
            out[...] = source[rows]

    def _reserve(self, k):
        # Some more: a rank's share of a batch differs by a few rows.
        self._capacity = k = k + k // 8
        self._buffers = [
            None if a is None else np.empty((k, *a.shape[1:]), dtype=a.dtype)
            for a in self._arrays
        ]


def _length(rows):
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)


def _converted(y, dtype):
    with np.errstate(invalid="ignore"):  # NaN becomes some integer, caught below
        converted = np.ascontiguousarray(y, dtype=dtype)
    if dtype.kind == "i" and y.dtype.kind == "f" and not (converted == y).all():
        row = int(np.flatnonzero(converted != y)[0])
        raise ValueError(
            f"y: expected class indices, got {y[row]} in row {row} of this rank"
        )
    return converted
