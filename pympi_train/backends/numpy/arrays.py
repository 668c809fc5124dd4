"""Operations on arrays in host memory, for the CPU backends.

Every backend has functions of these names for arrays in its own memory.
"""

import math

import numpy as np

from pympi_train.flat.memory import empty_block  # noqa: F401: for ops.py

ON_DEVICE = False  # NumPy can work on the arrays
empty, zeros, matmul = np.empty, np.zeros, np.matmul


def take_rows(source, rows, out):
    """``out <- source[rows]``, without a temporary.

    Parameters
    ----------
    source : ndarray, shape (n, ...)
        May be memory-mapped.
    rows : ndarray of intp, shape (k,)
        In [0, n). Not checked, because NumPy would then fill a copy of ``out`` first.
    out : ndarray, shape (k, ...), the dtype of ``source``
        Overwritten.
    """
    source.take(rows, 0, out, "clip")  # np.take needs microseconds to get here


def copy(source, out):
    """``out <- source``, of the same shape and dtype."""
    out[...] = source


def copy_rows(source, out):
    """``out <- source``, matrices whose rows may lie apart in memory."""
    out[...] = source


def fill(array, value):
    """``array <- value``, a number."""
    array[...] = value


def scale(array, factor):
    """``array <- factor array``; the factor is first rounded to the array's dtype."""
    array *= array.dtype.type(factor)


def add(source, out):
    """``out <- out + source``."""
    out += source


def subtract(a, b, out):
    """``out <- a - b``."""
    np.subtract(a, b, out=out)


def row_sum(parts, out):
    """``out[i] <- sum over r of parts[r, i]``, in the order of the rows."""
    np.add.reduce(parts, axis=0, out=out)


def square(block):
    """Return ``|block|^2`` as a float; NaN if an element is NaN or infinite.

    BLAS reads the block once, which takes a few percent of an update's time. The
    elements are examined only if that sum overflows.
    """
    found = float(np.dot(block, block))
    if math.isfinite(found):
        return found
    if not np.isfinite(block).all():
        return math.nan
    return float(np.square(block, dtype=np.float64).sum())


def to_host(array):
    """Return the array in host memory: the array itself."""
    return array


def numbers(array):
    """Return an array with which NumPy can compute: the array itself."""
    return array


def from_host(array, out):
    """``out <- array``, an array in host memory."""
    out[...] = array
