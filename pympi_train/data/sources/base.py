"""What serves rows to whoever trains, measures or predicts."""

import abc
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pympi_train.data.batch import Batch


@dataclass(frozen=True)
class Units:
    """What a data set's targets are called, and how they were scaled.

    Parameters
    ----------
    names : tuple of str, length t
    scale : ndarray, shape (t,), or None
        How much 1 of a target is in its own units; 1 each if None.
    """

    names: tuple
    scale: Any = None


class Source(abc.ABC):
    """Rows spread over ranks, each of which has some that lie together.

    Nobody else looks at a source's arrays: it may have none.

    Attributes
    ----------
    n : int
        Rows on all ranks together.
    start, stop : int
        This rank has rows ``start`` to ``stop - 1`` of the whole.
    key : bytes
        Of the ranks that share the rows, see `comm.ranks.key_of`; ``n_ranks`` of them.
    is_plain : bool
        Whether batches are contiguous, row by row: from another order a product of
        matrices may have other bits.
    units : Units or None
        Of the targets of a regression: for metrics that people read.
    """

    is_plain = True
    units: Any = None

    def __len__(self):
        return self.stop - self.start

    @property
    @abc.abstractmethod
    def kinds(self):
        """(shape of a row, dtype) of what a batch has, and None for the rest: Batch."""

    @property
    def nbytes(self):
        """Bytes of this rank's rows, if they were in memory."""
        row_bytes = sum(
            math.prod(shape) * dtype.itemsize
            for shape, dtype in filter(None, self.kinds[:3])
        )
        return len(self) * row_bytes

    @abc.abstractmethod
    def batch(self, rows, out=None):
        """Return some of this rank's rows.

        Parameters
        ----------
        rows : slice or ndarray of intp, shape (k,)
            Local: 0 is row ``start`` of the whole. Not checked.
        out : Batch, optional
            Of memory for k rows or more, as `room` makes it, which they are written to.

        Returns
        -------
        Batch
            Without ``out`` perhaps views of the source's own memory.
        """

    def room(self, k):
        """Return memory for batches of at most ``k`` rows."""
        return Batch(
            *(
                None if kind is None else np.empty((k, *kind[0]), kind[1])
                for kind in self.kinds[:3]
            )
        )

    def numbers(self, rows):
        """Return the numbers in the whole of this rank's ``rows``."""
        if isinstance(rows, slice):
            return slice(self.start + rows.start, self.start + rows.stop)
        return rows + self.start

    @abc.abstractmethod
    def weight_of(self, rows):
        """Return the total weight of some rows; how many they are where all weigh 1."""

    @abc.abstractmethod
    def targets(self):
        """Return the targets of all of this rank's rows: ndarray, in memory."""

    @abc.abstractmethod
    def check(self, model):
        """Let ``model`` look at all of this rank's rows once, if it has a ``check``.

        Raises
        ------
        ValueError
            If a row is one that the model cannot take, such as a class index beyond
            its outputs.
        """

    @abc.abstractmethod
    def with_targets(self, dtype):
        """Return the same rows with targets of ``dtype``.

        Raises
        ------
        ValueError
            If class indices are wanted and a target is no whole number.
        """

    @abc.abstractmethod
    def features_only(self):
        """Return the same rows without targets and weights."""

    @abc.abstractmethod
    def moved(self, old, new, comm):
        """Return a source whose ranks have other rows; as `data.moving.moved`.

        Notes
        -----
        Collective.
        """


def n_rows(rows):
    """Return how many ``rows`` are, a slice or an array."""
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)
