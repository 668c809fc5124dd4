"""Blocks that stay in cache, and the scratch memory that goes with them."""

import threading

import numpy as np

# Six operands of Adam of this size fit a 1 MiB L2; half of it costs 10 % in calls,
# four times as much 17 % in misses (25 million parameters, L2 of 2 MiB).
BLOCK_BYTES = 131_072

# Non-finite values are found once a step by whoever trains, on every rank alike: a
# warning for each ufunc and rank would say less, and compiled loops give none.
quiet = np.errstate(all="ignore")


class _Kept(threading.local):
    def __init__(self):
        self.arrays = {}


_kept = _Kept()


def scratch(dtype, size, slot=0):
    """Return ``size`` elements of unspecified content, the same memory each time.

    Parameters
    ----------
    dtype : dtype
        Of the elements.
    size : int
        Number of elements; memory grows to the largest size seen.
    slot : int
        Which of several arrays of the dtype that are needed at the same time.
    """
    kept = _kept.arrays.get((dtype, slot))
    if kept is None or kept.size < size:
        kept = np.empty(max(size, block_size(dtype)), dtype)
        _kept.arrays[dtype, slot] = kept
    return kept[:size]


def block_size(dtype):
    """Return the number of elements in a block."""
    return BLOCK_BYTES // dtype.itemsize


def flat_blocks(array):
    """Return the slices that cut ``array``, shape (n,), into blocks."""
    step = block_size(array.dtype)
    return [slice(i, i + step) for i in range(0, array.size, step)]


def row_blocks(array):
    """Return the slices that cut ``array``, shape (k, w), into blocks of whole rows."""
    k, w = array.shape
    step = max(1, block_size(array.dtype) // max(w, 1))
    return [slice(i, i + step) for i in range(0, k, step)]


def typed(dtype, *values):
    """Return each of ``values`` rounded to ``dtype``, as an array of one element.

    Ufuncs take arrays faster than NumPy's scalars, and twice as fast as Python's.
    """
    return list(np.array(values, dtype)[:, None])
