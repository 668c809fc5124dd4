"""Features that stay in their file until a batch asks for them."""

import numpy as np


class MappedRows:
    """Rows of a memory map, chosen, scaled and cast when they are asked for.

    As much of an array as feeds, data sets and models look at; the same bits as if all
    rows had been scaled and cast at once, since that is elementwise.

    Parameters
    ----------
    array : ndarray, shape (m, d)
        A view of the file.
    kept : ndarray of bool, shape (m,)
        Which of its rows there are.
    scaling : Scaling or None
    dtype : dtype
        That rows are given in.

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

    def __init__(self, array, kept, scaling, dtype):
        self._array, self._scaling, self.dtype = array, scaling, np.dtype(dtype)
        self._kept = None if kept.all() else np.flatnonzero(kept)
        n = len(array) if self._kept is None else len(self._kept)
        self.shape = n, array.shape[1]
        self.nbytes = n * array.shape[1] * self.dtype.itemsize

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


def is_mapped(array):
    """Return whether an array is a view of a file."""
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False
