"""Products with sparse rows, compiled; the functions of ``numpy.sparse``."""

import numpy as np

from pympi_train.backends.numba.jit import kernel
from pympi_train.backends.threads import for_chunks


def csr_matmul(x, w, out):
    """``out <- X W``; see ``numpy.sparse``.

    Reads each entry once, and an element of ``w`` for each entry and column.
    """
    done = np.cumsum(x.counts)
    n_entries = int(done[-1]) if len(done) else 0
    entries = x.indices, x.values
    is_vector = w.shape[1] == 1
    if is_vector:
        w, out = w.reshape(-1), out.reshape(-1)

    def cut(entry):  # the first row that ends after this entry
        return len(x) if entry >= n_entries else int(done.searchsorted(entry, "right"))

    def multiply(piece):
        rows = slice(cut(piece.start) if piece.start else 0, cut(piece.stop))
        ends = x.starts[rows], x.stops[rows]
        if is_vector:
            _times_vector(*ends, *entries, w, out[rows])
        else:
            _times_matrix(*ends, *entries, w, out[rows])

    for_chunks(multiply, n_entries)


def csr_transposed_matmul(x, delta, out):
    """``out <- X^T delta``; see ``numpy.sparse``.

    Each thread adds up a range of columns, so every element is summed in the order of
    the rows on any number of threads.
    """
    n_columns, n_entries = x.shape[1], x.n_entries
    arrays = x.starts, x.stops, x.indices, x.values
    is_vector = delta.shape[1] == 1
    if is_vector:
        delta, out = delta.reshape(-1), out.reshape(-1)

    def add_up(piece):
        low = n_columns * piece.start // max(n_entries, 1)
        high = n_columns
        if piece.stop < n_entries:
            high = n_columns * piece.stop // n_entries
        if is_vector:
            _transposed_times_vector(*arrays, delta, out, low, high)
        else:
            _transposed_times_matrix(*arrays, delta, out, low, high)

    for_chunks(add_up, n_entries)


@kernel
def _times_vector(starts, stops, indices, values, w, out):
    zero = w.dtype.type(0)
    for i in range(starts.size):
        start, stop = starts[i], stops[i]
        # Independent sums: one alone would wait for each of its additions.
        a, b, c, d = zero, zero, zero, zero
        e = start
        while e + 3 < stop:
            a += values[e] * w[np.uint32(indices[e])]
            b += values[e + 1] * w[np.uint32(indices[e + 1])]
            c += values[e + 2] * w[np.uint32(indices[e + 2])]
            d += values[e + 3] * w[np.uint32(indices[e + 3])]
            e += 4
        while e < stop:
            a += values[e] * w[np.uint32(indices[e])]
            e += 1
        out[i] = (a + b) + (c + d)


@kernel
def _times_matrix(starts, stops, indices, values, w, out):
    n = w.shape[1]
    for i in range(starts.size):
        for j in range(n):
            out[i, j] = 0
        for e in range(starts[i], stops[i]):
            value, column = values[e], np.uint32(indices[e])
            for j in range(n):
                out[i, j] += value * w[column, j]


@kernel
def _transposed_times_vector(starts, stops, indices, values, delta, out, low, high):
    out[low:high] = 0
    for i in range(starts.size):
        start, stop = starts[i], stops[i]
        if low > 0:
            start += np.searchsorted(indices[start:stop], low)
        d = delta[i]
        for e in range(start, stop):
            if indices[e] >= high:
                break
            out[np.uint32(indices[e])] += values[e] * d


@kernel
def _transposed_times_matrix(starts, stops, indices, values, delta, out, low, high):
    n = out.shape[1]
    out[low:high] = 0
    for i in range(starts.size):
        start, stop = starts[i], stops[i]
        if low > 0:
            start += np.searchsorted(indices[start:stop], low)
        for e in range(start, stop):
            if indices[e] >= high:
                break
            value, column = values[e], np.uint32(indices[e])
            for j in range(n):
                out[column, j] += value * delta[i, j]
