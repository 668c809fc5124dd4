"""Arrays in host memory: made, multiplied, copied, added up. For CPU backends.

The names are those of every backend; arrays of another one lie elsewhere.
"""

import math

import numpy as np

from pympi_train.flat.memory import empty_block  # noqa: F401: a backend's name

ON_DEVICE = False  # arrays lie in host memory: NumPy can work on them
empty, zeros, matmul = np.empty, np.zeros, np.matmul


def take_rows(source, rows, out):
    """``out <- source[rows]``, without a temporary.

    Parameters
    ----------
    source : ndarray, shape (n, ...)
        May be memory-mapped.
    rows : ndarray of intp, shape (k,)
        In [0, n). Not checked: NumPy would fill a copy of ``out`` first.
    out : ndarray, shape (k, ...), the dtype of ``source``
        Overwritten.
    """
    np.take(source, rows, axis=0, out=out, mode="clip")


def copy(source, out):
    """``out <- source``, of the same shape and dtype."""
    out[...] = source


def fill(array, value):
    """``array <- value``, a number."""
    array[...] = value


def scale(array, factor):
    """``array <- factor array``, the factor rounded to the array's dtype first."""
    array *= array.dtype.type(factor)


def add(source, out):
    """``out <- out + source``."""
    out += source


def subtract(a, b, out):
    """``out <- a - b``."""
    np.subtract(a, b, out=out)


def row_sum(parts, out):
    """``out[i] <- sum over r of parts[r, i]``, one row after the other."""
    np.add.reduce(parts, axis=0, out=out)


def square(block):
    """Return ``|block|^2`` as a float; NaN if an element is NaN or infinite.

    One read of the block by the BLAS, a few percent of an update; only when that sum
    overflows are the elements themselves looked at.
    """
    found = float(np.dot(block, block))
    if math.isfinite(found):
        return found
    if not np.isfinite(block).all():
        return math.nan
    return float(np.square(block, dtype=np.float64).sum())


def to_host(array):
    """Return an array as one in host memory: itself."""
    return array


def numbers(array):
    """Return an array as one that NumPy computes with: itself."""
    return array


def from_host(array, out):
    """``out <- array``, which lies in host memory."""
    out[...] = array
