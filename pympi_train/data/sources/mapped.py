"""Features that stay in their file until a batch asks for them."""

import copy

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.data.moving import moved
from pympi_train.data.sources.dataset import Dataset


class MappedRows:
    """Rows of a memory map, chosen, scaled and cast when they are asked for.

    As much of an array as feeds, data sets and models look at; the same bits as if all
    rows had been scaled and cast at once, since that is elementwise.

    Parameters
    ----------
    array : ndarray, shape (m, d)
        Some rows of a file that lie together; a view of it.
    kept : ndarray of bool, shape (m,), or of intp
        Which of them there are, or their numbers among them, ascending.
    scaling : Scaling or None
    dtype : dtype
        That rows are given in.
    reach : callable, optional
        ``reach(start, stop)`` returns other rows of the file; all ranks have the file.
    first : int
        Number in the file of the first row of ``array``.

    Attributes
    ----------
    shape : (int, int)
    dtype : dtype
    ndim : int
        2.
    nbytes : int
        Of all rows, if they were in memory.
    """

    ndim = 2

    def __init__(self, array, kept, scaling, dtype, *, reach=None, first=0):
        self._array, self._scaling, self.dtype = array, scaling, np.dtype(dtype)
        self._reach, self._first = reach, first
        if kept.dtype == bool:
            kept = array if kept.all() else np.flatnonzero(kept)
        n = len(kept)
        self._kept = None if n == len(array) else kept
        self.shape = n, array.shape[1]
        self.nbytes = n * array.shape[1] * self.dtype.itemsize

    def scaled(self, scaling, dtype):
        """Return the same rows, of which none is scaled yet, scaled and cast."""
        other = copy.copy(self)
        other._scaling, other.dtype = scaling, np.dtype(dtype)
        other.nbytes = other.shape[0] * other.shape[1] * other.dtype.itemsize
        return other

    def moved(self, old, new, comm):
        """Return the rows that this rank has by the cuts ``new``, in the file as well.

        Their numbers in it are what moves; as `data.moving.moved`. Collective.
        """
        kept = np.arange(len(self)) if self._kept is None else self._kept
        numbers = moved(self._first + kept, old, new, comm)
        first, stop = (numbers[0], numbers[-1] + 1) if len(numbers) else (0, 0)
        with together(comm):  # the file may be gone meanwhile, for some of them
            array = self._reach(int(first), int(stop))
        how = {"reach": self._reach, "first": int(first)}
        return MappedRows(array, numbers - first, self._scaling, self.dtype, **how)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        """Return some rows, a slice or an array of numbers; perhaps as a view."""
        part = self._array[rows if self._kept is None else self._kept[rows]]
        if self._scaling is not None:
            part = self._scaling.apply(part)
        with np.errstate(over="ignore"):
            return np.asarray(part, self.dtype, order="C")

    def __array__(self, dtype=None, copy=None):
        """Return all rows in memory: what NumPy's functions ask for."""
        return np.asarray(self[:], dtype)


class MappedDataset(Dataset):
    """As `Dataset`, of features that are MappedRows: read as batches need them."""

    is_plain = True  # rows are put in C order as they are read

    def _moved_features(self, old, new, comm):
        return self.x.moved(old, new, comm)
