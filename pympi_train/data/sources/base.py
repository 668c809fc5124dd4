"""The interface of a source of rows for training, evaluation and prediction."""

import abc
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pympi_train.data.batch import Batch


@dataclass(frozen=True)
class Units:
    """The names of a data set's targets, and their scaling.

    Parameters
    ----------
    names : tuple of str, length t
    scale : ndarray, shape (t,), or None
        Size of 1 of a scaled target in the target's own units; None: all 1.
    """

    names: tuple
    scale: Any = None


class Source(abc.ABC):
    """Rows spread over ranks; each rank has a contiguous range of them.

    Other code must not access a source's arrays: a source may have none.

    Attributes
    ----------
    n : int
        Rows on all ranks together.
    start, stop : int
        This rank has rows ``start`` to ``stop - 1`` of the whole.
    key : bytes
        Identifies the ranks that share the rows, see `comm.ranks.key_of`.
    n_ranks : int
        Number of these ranks.
    is_plain : bool
        Whether batches are in C order. A matrix product of another memory order may
        have other bits.
    is_sparse : bool
        Whether features are sparse rows.
    units : Units or None
        Units of the targets of a regression, for printed metrics.
    remarks : tuple of str
        What the user should know of the files.
    order : WindowOrder or None
        The order of the rows in an epoch; None: the order "full".
    can_move : bool
        Whether `moved` can give this rank's rows to other ranks, without reading those
        of a file into memory.
    """

    is_plain, is_sparse, can_move = True, False, True
    remarks: tuple = ()
    units: Any = None
    order: Any = None

    def __len__(self):
        return self.stop - self.start

    @property
    @abc.abstractmethod
    def kinds(self):
        """A Batch of (shape of a row, dtype), with None for absent fields."""

    @property
    def row_bytes(self):
        """Bytes that a row takes in memory."""
        return sum(
            math.prod(shape) * dtype.itemsize
            for shape, dtype in filter(None, self.kinds[:3])
        )

    @property
    def nbytes(self):
        """Bytes that this rank's rows take in memory."""
        return len(self) * self.row_bytes

    def pieces(self, n_bytes):
        """Yield slices of this rank's rows, each of about ``n_bytes``, for `batch`."""
        step = max(1, int(n_bytes // max(1, self.row_bytes)))
        for start in range(0, len(self), step):
            yield slice(start, min(start + step, len(self)))

    @abc.abstractmethod
    def batch(self, rows, out=None):
        """Return some of this rank's rows.

        Parameters
        ----------
        rows : slice or ndarray of intp, shape (k,)
            Local row numbers: 0 is row ``start`` of the whole. Not checked.
        out : Batch, optional
            Memory for at least k rows, as `room` returns it. The rows are written to
            it.

        Returns
        -------
        Batch
            Without ``out``, it may hold views of the source's own memory.
        """

    def room(self, k):
        """Return memory for batches of at most ``k`` rows."""
        return Batch(
            *(
                None if kind is None else np.empty((k, *kind[0]), kind[1])
                for kind in self.kinds[:3]
            )
        )

    def read_ahead(self, ranges):
        """Start to read rows that batches will need soon, if reading takes time.

        Parameters
        ----------
        ranges : ndarray of int, shape (m, 2)
            Local rows, start and stop.
        """

    def numbers(self, rows):
        """Return the global row numbers of this rank's ``rows``."""
        if isinstance(rows, slice):
            return slice(self.start + rows.start, self.start + rows.stop)
        return rows + self.start

    @abc.abstractmethod
    def weight_of(self, rows):
        """Return the total weight of some rows; without weights, the row count."""

    @abc.abstractmethod
    def targets(self):
        """Return the targets of all of this rank's rows: ndarray, in memory."""

    @abc.abstractmethod
    def row_weights(self):
        """Return the weights of all of this rank's rows, shape (k,), or None."""

    @abc.abstractmethod
    def check(self, model):
        """Let ``model`` check all of this rank's rows once, if it has a ``check``.

        Raises
        ------
        ValueError
            If the model cannot take a row, for example because of a class index beyond
            its outputs.
        """

    @abc.abstractmethod
    def with_targets(self, dtype):
        """Return the same rows with targets of ``dtype``.

        Raises
        ------
        ValueError
            If class indices are needed and a target is not a whole number.
        """

    @abc.abstractmethod
    def features_only(self):
        """Return the same rows without targets and weights."""

    @abc.abstractmethod
    def moved(self, old, new, comm):
        """Return a source with its rows moved between ranks; see `data.moving.moved`.

        Notes
        -----
        Collective.
        """

    def move(self, old, new, comm):
        """Move this source's own rows between ranks; arguments as for `moved`.

        Notes
        -----
        Collective. A rank holds its old and its new rows for a moment, not longer.
        """
        vars(self).update(vars(self.moved(old, new, comm)))


def n_rows(rows):
    """Return the number of ``rows``, a slice or an array."""
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)
