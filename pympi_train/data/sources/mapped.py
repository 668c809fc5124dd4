"""Features that stay in their file until a batch needs them."""

import copy

import numpy as np

from pympi_train.backends.numpy.arrays import take_rows
from pympi_train.comm.checks import together
from pympi_train.data.formats.streamed import StreamedRows
from pympi_train.data.moving import moved
from pympi_train.data.partition import owner
from pympi_train.data.sources.advice import read_soon
from pympi_train.data.sources.dataset import Dataset
from pympi_train.data.windows.read_ahead import n_together


class MappedRows:
    """Rows of a memory map that are selected, prepared and cast on access.

    Provides the part of ndarray's interface that feeds, data sets and models use.
    Each row is prepared alone, so the bits are those of preparing all rows at once.

    Parameters
    ----------
    array : ndarray, shape (m, d)
        Contiguous rows of a file, as a view of it.
    kept : ndarray of bool, shape (m,), or of intp
        Mask of the rows to keep, or their indices in ``array``, ascending.
    preparation : Preparation or None
    dtype : dtype
        Dtype of the returned rows.
    reach : callable, optional
        ``reach(start, stop)`` returns any rows of the file. All ranks must be able to
        read the file.
    first : int
        Row number in the file of the first row of ``array``.

    Attributes
    ----------
    shape : (int, int)
    dtype : dtype
    ndim : int
        2.
    nbytes : int
        Bytes that all rows take in memory.
    """

    ndim = 2

    def __init__(self, array, kept, preparation, dtype, *, reach=None, first=0):
        self._array, self._reach, self._first = array, reach, first
        if kept.dtype == bool:
            kept = array if kept.all() else np.flatnonzero(kept)
        n = len(kept)
        self._kept = None if n == len(array) else kept
        self._set(n, preparation, dtype)

    def _set(self, n, preparation, dtype):
        if preparation is not None and preparation.is_plain:
            preparation = None  # rows are then read into their place
        self._preparation, self.dtype = preparation, np.dtype(dtype)
        width = self._array.shape[1] if preparation is None else preparation.n_features
        self.shape = n, width
        self.nbytes = n * width * self.dtype.itemsize

    def prepared(self, preparation, dtype):
        """Return the same rows, prepared and cast. They must not be prepared yet."""
        other = copy.copy(self)
        other._set(len(self), preparation, dtype)
        return other

    @property
    def can_move(self):
        """Whether other ranks can read the rows; the same on every rank."""
        return self._reach is not None

    @property
    def where(self):
        """Where the rows are: "mapped" or "streamed"."""
        return "streamed" if hasattr(self._array, "reserve") else "mapped"

    @property
    def block_rows(self):
        """Rows that are decoded together: 1 if they are mapped."""
        return getattr(self._array, "block_rows", 1)

    def reserve(self, *room):
        """Keep room for decoded blocks: the arguments of `StreamedRows.reserve`."""
        if hasattr(self._array, "reserve"):
            self._array.reserve(*room)

    def repeated(self, rows):
        """Return some rows, ascending and perhaps several times, as MappedRows."""
        other = copy.copy(self)
        other._kept = rows if self._kept is None else self._kept[rows]
        other._set(len(rows), self._preparation, self.dtype)
        return other

    def moved(self, old, new, comm):
        """Return this rank's rows by the cuts ``new``, as MappedRows. Collective.

        Only row numbers of the file are sent. Arguments as for `data.moving.moved`.
        """
        kept = np.arange(len(self)) if self._kept is None else self._kept
        numbers = moved(self._first + kept, old, new, comm)
        first, stop = (numbers[0], numbers[-1] + 1) if len(numbers) else (0, 0)
        with together(comm):  # the file may have been removed on some ranks
            array = self._reach(int(first), int(stop))
        how = {"reach": self._reach, "first": int(first)}
        return MappedRows(array, numbers - first, self._preparation, self.dtype, **how)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        """Return the rows of a slice or of an index array; perhaps as a view."""
        part = self._array[rows if self._kept is None else self._kept[rows]]
        if self._preparation is not None:
            part = self._preparation.apply(part)
        with np.errstate(over="ignore"):
            return np.asarray(part, self.dtype, order="C")

    def take_into(self, rows, out):
        """Store the rows of an index array in ``out``; read them into it if possible.
        """
        is_same = self._preparation is None and self._array.dtype == self.dtype
        array = self._array
        if not is_same or not isinstance(array, (np.ndarray, StreamedRows)):
            out[...] = self[rows]
            return
        rows = rows if self._kept is None else self._kept[rows]
        if isinstance(array, StreamedRows):
            array.take_into(rows, out)
        else:
            take_rows(array, rows, out)

    def read_ahead(self, ranges):
        """Let the kernel read rows, or a thread decode them, that are needed soon.

        Parameters
        ----------
        ranges : ndarray of int, shape (m, 2)
            Rows, start and stop; none is empty.
        """
        if self._kept is not None:
            starts, stops = ranges.T
            ranges = np.stack([self._kept[starts], self._kept[stops - 1] + 1], axis=1)
        if hasattr(self._array, "read_ahead"):
            self._array.read_ahead(ranges)
            return
        for start, stop in ranges.tolist():
            for part in self._views(start, stop):
                read_soon(part)

    def _views(self, start, stop):
        if isinstance(self._array, np.ndarray):
            return [self._array[start:stop]]
        return self._array.views(start, stop)

    def __array__(self, dtype=None, copy=None):
        """Return all rows in memory; NumPy's functions call this."""
        return np.asarray(self[:], dtype)


class MappedDataset(Dataset):
    """A `Dataset` whose features are MappedRows, read when batches need them."""

    is_plain = True  # reading puts rows in C order

    def read_ahead(self, ranges):
        """Let the kernel read rows that will be needed soon; see `Source.read_ahead`.
        """
        self.x.read_ahead(ranges)

    @property
    def can_move(self):
        """Whether other ranks can read the rows in the file."""
        return self.x.can_move

    @property
    def block_rows(self):
        """Rows that are decoded together."""
        return self.x.block_rows

    @property
    def where(self):
        """Where features are: "mapped" or "streamed"."""
        return self.x.where

    def reserve(self, order):
        """Keep room for the blocks of the windows in work, and of those read ahead.

        ``order`` is a `WindowOrder`.
        """
        n_shards = 0
        if len(self):
            ends = self.start, self.stop - 1
            first, last = (owner(row, self.n, order.n_shards) for row in ends)
            n_shards = last - first + 1
        self.x.reserve(n_shards, 2 * order.window_rows, n_together(n_shards))

    def moved(self, old, new, comm):
        """Return a data set with its rows moved between ranks. Collective."""
        self.x.reserve(0, 0)  # ends reading ahead
        other = super().moved(old, new, comm)
        if other.order is not None:
            other.reserve(other.order)
        return other

    def _repeated_features(self, rows):
        return self.x.repeated(rows)

    def _moved_features(self, old, new, comm):
        return self.x.moved(old, new, comm)
