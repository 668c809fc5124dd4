"""Products with sparse rows, compiled; the functions of ``numpy.sparse``."""

import numpy as np

from pympi_train.backends.numba.jit import helper, kernel
from pympi_train.backends.threads import MIN_CHUNK, crew_size, for_chunks

LINE = np.uint64(16)  # entries of a cache line, float32
DIGIT_BITS, N_DIGITS = 11, 2048  # sorted at once: the counts stay in L1
AHEAD = 64  # rows whose entries are fetched together: they stay in cache
# Places of entries are unsigned: Numba would look for each signed index whether it
# counts from the end, a third of the time of a product with rows in cache.
U1, U2, U3, U4 = (np.uint64(k) for k in range(1, 5))


def csr_matmul(x, w, out):
    """``out <- X W``; see ``numpy.sparse``.

    Reads each entry once, and an element of ``w`` for each entry and column.
    """
    entries = x.indices, x.values
    is_vector = w.shape[1] == 1
    if is_vector:
        w, out = w.reshape(-1), out.reshape(-1)
    times = _times_vector if is_vector else _times_matrix
    if _takes_one_thread(x):
        times(x.starts, x.stops, *entries, w, out)
        return
    n_entries = x.n_entries
    done = np.cumsum(x.counts)

    def cut(entry):  # the first row that ends after this entry
        return len(x) if entry >= n_entries else int(done.searchsorted(entry, "right"))

    def multiply(piece):
        rows = slice(cut(piece.start) if piece.start else 0, cut(piece.stop))
        times(x.starts[rows], x.stops[rows], *entries, w, out[rows])

    for_chunks(multiply, n_entries)


def csr_touched(x, delta, room=0):
    """Return the columns that occur in X, and their rows of X^T delta.

    See ``numpy.sparse``. The entries are sorted by column, because a table of all
    columns would be read at random, outside the cache.
    """
    n = x.n_entries
    columns, order = np.empty((2, n), np.int32), np.empty((2, n), np.int32)
    rows = np.empty(n, np.int32)
    values = np.empty(n, x.dtype)
    entries = x.starts, x.stops, x.indices, x.values
    _copy_entries(*entries, columns[0], rows, values)
    n_bits = int(x.shape[1] - 1).bit_length()
    which = _sort_by_column(columns, order, max(1, -(-n_bits // DIGIT_BITS)))
    found = np.empty(n + room, np.int32)
    sums = np.empty((n + room, delta.shape[1]), delta.dtype)
    by_column = columns[which], order[which]
    m = _add_sorted(*by_column, rows, values, delta, found, sums) + room
    return found[:m], sums[:m]


def csr_transposed_matmul(x, delta, out):
    """``out <- X^T delta``; see ``numpy.sparse``.

    Each thread adds up a range of columns, so every element is summed in the order of
    the rows on any number of threads.
    """
    n_columns, arrays = x.shape[1], (x.starts, x.stops, x.indices, x.values)
    is_vector = delta.shape[1] == 1
    if is_vector:
        delta, out = delta.reshape(-1), out.reshape(-1)
    times = _transposed_times_vector if is_vector else _transposed_times_matrix
    if _takes_one_thread(x):
        times(*arrays, delta, out, 0, n_columns)
        return
    n_entries = x.n_entries

    def add_up(piece):
        low = n_columns * piece.start // n_entries
        high = n_columns
        if piece.stop < n_entries:
            high = n_columns * piece.stop // n_entries
        times(*arrays, delta, out, low, high)

    for_chunks(add_up, n_entries)


def _takes_one_thread(x):
    """Return whether one thread computes a product; entries are counted only if needed.

    Small steps need the microseconds.
    """
    return crew_size() == 1 or x.n_entries < 2 * MIN_CHUNK


@helper
def _touch(starts, stops, indices, values):
    """Read a value of each cache line of some rows; return a number, to be used.

    The rows of a shuffled batch lie anywhere in memory. These loads do not wait for
    each other, whereas those of the products do: half the time, 0.1 million rows. The
    processor itself fetches rows that follow each other ahead.
    """
    some = values.dtype.type(0)
    others = np.int32(0)
    for i in range(starts.size):
        start, stop = np.uint64(starts[i]), np.uint64(stops[i])
        for e in range(start, stop, LINE):
            some += values[e]
            others ^= indices[e]
        if stop > start:
            some += values[stop - U1]
            others ^= indices[stop - U1]
    return some, others


@kernel
def _times_vector(starts, stops, indices, values, w, out):
    zero, found = w.dtype.type(0), (w.dtype.type(0), np.int32(0))
    for first in range(0, starts.size, AHEAD):
        last = min(first + AHEAD, starts.size)
        if last - first > 1 and starts[first + 1] != stops[first]:
            found = _touch(starts[first:last], stops[first:last], indices, values)
        for i in range(first, last):
            e, stop = np.uint64(starts[i]), np.uint64(stops[i])
            # Independent sums: one alone would wait for each of its additions.
            a, b, c, d = zero, zero, zero, zero
            while e + U3 < stop:
                a += values[e] * w[np.uint32(indices[e])]
                b += values[e + U1] * w[np.uint32(indices[e + U1])]
                c += values[e + U2] * w[np.uint32(indices[e + U2])]
                d += values[e + U3] * w[np.uint32(indices[e + U3])]
                e += U4
            while e < stop:
                a += values[e] * w[np.uint32(indices[e])]
                e += U1
            out[i] = (a + b) + (c + d)
    return found  # else the compiler would leave the loads out


@kernel
def _times_matrix(starts, stops, indices, values, w, out):
    n, found = w.shape[1], (w.dtype.type(0), np.int32(0))
    for first in range(0, starts.size, AHEAD):
        last = min(first + AHEAD, starts.size)
        if last - first > 1 and starts[first + 1] != stops[first]:
            found = _touch(starts[first:last], stops[first:last], indices, values)
        for i in range(first, last):
            for j in range(n):
                out[i, j] = 0
            for e in range(np.uint64(starts[i]), np.uint64(stops[i])):
                value, column = values[e], np.uint32(indices[e])
                for j in range(n):
                    out[i, j] += value * w[column, j]
    return found


@kernel
def _transposed_times_vector(starts, stops, indices, values, delta, out, low, high):
    found = values.dtype.type(0), np.int32(0)
    is_part = low > 0 or high < out.size
    out[low:high] = 0
    for first in range(0, starts.size, AHEAD):
        last = min(first + AHEAD, starts.size)
        if last - first > 1 and starts[first + 1] != stops[first]:
            found = _touch(starts[first:last], stops[first:last], indices, values)
        for i in range(first, last):
            start, stop = starts[i], stops[i]
            if is_part:  # no test within the loop below: a fifth of its time
                stop = start + np.searchsorted(indices[start:stop], high)
                start += np.searchsorted(indices[start:stop], low)
            d = delta[i]
            for e in range(np.uint64(start), np.uint64(stop)):
                out[np.uint32(indices[e])] += values[e] * d
    return found


@kernel
def _transposed_times_matrix(starts, stops, indices, values, delta, out, low, high):
    n, found = out.shape[1], (values.dtype.type(0), np.int32(0))
    is_part = low > 0 or high < out.shape[0]
    out[low:high] = 0
    for first in range(0, starts.size, AHEAD):
        last = min(first + AHEAD, starts.size)
        if last - first > 1 and starts[first + 1] != stops[first]:
            found = _touch(starts[first:last], stops[first:last], indices, values)
        for i in range(first, last):
            start, stop = starts[i], stops[i]
            if is_part:
                stop = start + np.searchsorted(indices[start:stop], high)
                start += np.searchsorted(indices[start:stop], low)
            for e in range(np.uint64(start), np.uint64(stop)):
                value, column = values[e], np.uint32(indices[e])
                for j in range(n):
                    out[column, j] += value * delta[i, j]
    return found


@kernel
def _copy_entries(starts, stops, indices, values, columns, rows, own_values):
    n = 0
    for i in range(starts.size):
        for e in range(np.uint64(starts[i]), np.uint64(stops[i])):
            columns[n], rows[n], own_values[n] = indices[e], i, values[e]
            n += 1


@kernel
def _sort_by_column(columns, order, n_digits):
    """Sort ``columns[0]`` digit by digit, stably; return where the result lies.

    The same row of ``order`` then has the places that the columns came from.
    """
    n = columns.shape[1]
    for i in range(n):
        order[0, i] = i
    ends = np.empty(N_DIGITS + 1, np.int64)
    for digit in range(n_digits):
        shift = np.uint32(digit * DIGIT_BITS)
        a, b = digit % 2, (digit + 1) % 2
        ends[:] = 0
        for i in range(n):
            ends[((np.uint32(columns[a, i]) >> shift) & (N_DIGITS - 1)) + 1] += 1
        for k in range(N_DIGITS):
            ends[k + 1] += ends[k]
        for i in range(n):
            k = (np.uint32(columns[a, i]) >> shift) & (N_DIGITS - 1)
            to = ends[k]
            columns[b, to], order[b, to] = columns[a, i], order[a, i]
            ends[k] = to + 1
    return n_digits % 2


@kernel
def _add_sorted(columns, order, rows, values, delta, found, sums):
    n, m, last = delta.shape[1], 0, np.int32(-1)
    for k in range(columns.size):
        e = order[k]
        if columns[k] != last:
            found[m] = last = columns[k]
            for j in range(n):
                sums[m, j] = 0
            m += 1
        for j in range(n):
            sums[m - 1, j] += values[e] * delta[rows[e], j]
    return m
