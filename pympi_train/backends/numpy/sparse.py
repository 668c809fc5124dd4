"""Products with sparse rows, with NumPy."""

import numpy as np


def csr_matmul(x, w, out):
    """``out <- X W``.

    Parameters
    ----------
    x : CSR, shape (k, d)
    w : ndarray, shape (d, c), the dtype of ``x``
    out : ndarray, shape (k, c)
        Overwritten.
    """
    at, counts = x.where(), x.counts
    indices, values = x.indices[at], x.values[at]
    full = np.flatnonzero(counts)  # reduceat takes an empty row for one of one entry
    heads = (np.cumsum(counts) - counts)[full]
    out[...] = 0
    if len(full):
        for j in range(w.shape[1]):
            out[full, j] = np.add.reduceat(values * w[indices, j], heads)


def csr_touched(x, delta, room=0):
    """Return the columns that occur in X, and their rows of X^T delta.

    Parameters
    ----------
    x : CSR, shape (k, d)
    delta : ndarray, shape (k, c), the dtype of ``x``
    room : int
        Number of further columns, left empty, at the end.

    Returns
    -------
    columns : ndarray of int32, shape (m,)
        Each once, ascending.
    sums : ndarray, shape (m, c)
    """
    at, rows = x.where(), x.row_numbers()
    found, places = np.unique(x.indices[at], return_inverse=True)
    m = len(found)
    columns = np.concatenate([found, np.zeros(room, np.int32)])
    sums = np.empty((m + room, delta.shape[1]), delta.dtype)
    for j in range(delta.shape[1]):
        products = x.values[at] * delta[rows, j]
        sums[:m, j] = np.bincount(places, products, minlength=m)
    return columns, sums


def csr_transposed_matmul(x, delta, out):
    """``out <- X^T delta``.

    Parameters
    ----------
    x : CSR, shape (k, d)
    delta : ndarray, shape (k, c), the dtype of ``x``
    out : ndarray, shape (d, c)
        Overwritten. Each element is summed in the order of the rows.
    """
    at, rows = x.where(), x.row_numbers()
    indices, values = x.indices[at], x.values[at]
    for j in range(delta.shape[1]):
        products = values * delta[rows, j]
        out[:, j] = np.bincount(indices, products, minlength=len(out))
