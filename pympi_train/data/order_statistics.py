"""Order statistics of values spread over ranks: exact, without gathering or sorting."""

import numpy as np

from pympi_train.comm.collectives import reduced
from pympi_train.data.standardise import row_chunks

DIGIT_BITS = 8  # a round of counting fixes so many bits of a key
_SIGN = np.uint64(1 << 63)


def select(chunks, ranks, comm):
    """Return the keys at some places in the sorted order of each group.

    A radix selection: each round counts the next digit of the keys that share the
    digits found so far. Counts are integers, so the result does not depend on the
    number of ranks.

    Parameters
    ----------
    chunks : callable
        ``chunks()`` iterates over this rank's (keys, groups), arrays of uint64 and of
        intp of equal length.
    ranks : ndarray of int64, shape (g, t)
        Places in the sorted keys of each group, from 0. A place outside the group
        gives an arbitrary key.
    comm : MPI.Comm

    Returns
    -------
    ndarray, shape (g, t), uint64

    Notes
    -----
    Collective. Reads the chunks eight times.
    """
    n_groups, n_places = ranks.shape
    left = ranks.astype(np.int64)
    found = np.zeros(ranks.shape, dtype=np.uint64)
    n_digits = 1 << DIGIT_BITS
    for shift in range(64 - DIGIT_BITS, -1, -DIGIT_BITS):
        counts = np.zeros((n_places, n_groups * n_digits), dtype=np.int64)
        for keys, groups in chunks():
            digits = (keys >> np.uint64(shift)).astype(np.intp) & (n_digits - 1)
            # A shift by 64 bits is undefined: there is no prefix in the first round.
            is_first = shift == 64 - DIGIT_BITS
            prefix = keys * np.uint64(0) if is_first else (
                keys >> np.uint64(shift + DIGIT_BITS)
            )
            for t in range(n_places):
                alike = prefix == found[groups, t]
                cells = groups[alike] * n_digits + digits[alike]
                counts[t] += np.bincount(cells, minlength=counts.shape[1])
        counts = reduced(comm, counts).astype(np.int64)
        up_to = counts.reshape(n_places, n_groups, n_digits).cumsum(axis=2)
        up_to = up_to.transpose(1, 0, 2)
        digit = (up_to <= left[:, :, None]).sum(axis=2).clip(max=n_digits - 1)
        before = np.take_along_axis(up_to, np.maximum(digit - 1, 0)[..., None], axis=2)
        left -= np.where(digit > 0, before[..., 0], 0)
        found = (found << np.uint64(DIGIT_BITS)) | digit.astype(np.uint64)
    return found


def medians(x, keep, counts, comm):
    """Return the median of each column, without NaN: shape (d,), float64.

    The mean of the two middle values if their number is even, as ``numpy.median``; NaN
    for a column without values.

    Parameters
    ----------
    x : array_like, shape (k, d)
        This rank's rows, read in chunks.
    keep : ndarray of bool, shape (k,)
        The rows that count.
    counts : ndarray, shape (d,)
        Values of each column in these rows of all ranks, as in `Moments`.
    comm : MPI.Comm

    Notes
    -----
    Collective.
    """
    d = x.shape[1]

    def chunks():
        for rows in row_chunks(x):
            part = np.asarray(x[rows][keep[rows]], dtype=np.float64)
            columns = np.broadcast_to(np.arange(d), part.shape)
            there = ~np.isnan(part)
            yield _keys(part[there]), columns[there]

    counts = counts.astype(np.int64)
    middle = np.stack([(counts - 1) // 2, counts // 2], axis=1)
    low, high = _values(select(chunks, np.maximum(middle, 0), comm)).T
    with np.errstate(over="ignore"):
        mean = (low + high) / 2
    mean = np.where(np.isfinite(mean), mean, low / 2 + high / 2)
    return np.where(counts > 0, mean, np.nan)


def _keys(values):
    """Return uint64 keys in the order of float64 ``values``."""
    bits = np.ascontiguousarray(values).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _values(keys):
    """Return the float64 values of ``keys``: the inverse of `_keys`."""
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float64)
