"""Checks of sparse rows, and rows made of entries in any order."""

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.errors import DataError

CHECKED_ENTRIES = 1 << 20  # checked at once: masks of all would take memory
MAX_COLUMNS = 2**31  # indices are int32


def csr_of_entries(counts, indices, values, n_columns):
    """Return the CSR of entries that lie row after row, in any order within a row.

    Parameters
    ----------
    counts : ndarray of int, shape (k,)
        Number of entries of each row.
    indices : ndarray of int, shape (e,)
        Columns, from 0; no column twice in a row.
    values : ndarray, shape (e,)
    n_columns : int
    """
    pointers = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    indices = indices.astype(np.int32, copy=False)
    x = CSR.of_pointers(pointers, indices, values, n_columns)
    return x if first_unsorted(x) is None else sorted_rows(x)


def sorted_rows(x):
    """Return the same rows, compact, with the entries of each in order of columns."""
    x = x.compact()
    order = np.lexsort((x.indices, x.row_numbers()))
    made_of = x.indices[order], x.values[order], x.shape[1]
    return CSR(x.starts, x.stops, *made_of)


def first_unsorted(x):
    """Return the first row whose columns do not ascend, or None."""
    for first, part in parts_of(x):
        at = part.where()
        indices = part.indices[at]
        rises = indices[1:] > indices[:-1]
        ends = np.cumsum(part.counts)[:-1]
        rises[ends[(0 < ends) & (ends < len(indices))] - 1] = True  # another row begins
        if not rises.all():
            return first + int(part.row_numbers()[np.argmin(rises) + 1])
    return None


def require_sparse_rows(x, place, first_row=0):
    """Raise DataError at the first bad entry of sparse rows.

    Bad is a column outside the matrix, one that comes twice in a row or is not in
    order, and a value that is NaN or infinite.

    Parameters
    ----------
    x : CSR
    place : str
        The file, for messages.
    first_row : int
        Number of the first row there.
    """
    for first, part in parts_of(x):
        at = part.where()
        indices, values = part.indices[at], part.values[at]
        wrong = (indices < 0) | (indices >= x.shape[1])
        _refuse(part, wrong, place, first_row + first, indices, (
            f"expected columns from 0 to {x.shape[1] - 1}, found column {{}}"
        ))
        if values.dtype.kind == "f":
            wrong = ~np.isfinite(values)
            text = "expected a finite number, found {}"
            _refuse(part, wrong, place, first_row + first, values, text)
    row = first_unsorted(x)
    if row is not None:
        raise DataError(
            f"{place}, row {first_row + row} (from 0): a column comes twice; "
            "SciPy's sum_duplicates() adds the values up"
        )


def _refuse(part, wrong, place, first_row, found, text):
    if wrong.any():
        entry = int(np.argmax(wrong))
        row = first_row + int(part.row_numbers()[entry])
        raise DataError(f"{place}, row {row} (from 0): {text.format(found[entry])}")


def parts_of(x, some=None):
    """Yield (first row, CSR of successive rows) with about ``CHECKED_ENTRIES`` each.

    The parts cover the rows in the slice ``some``, by default all rows.
    """
    ends = np.cumsum(x.counts)
    first, n = (0, len(x)) if some is None else (some.start, some.stop)
    while first < n:
        done = int(ends[first - 1]) if first else 0
        stop = int(np.searchsorted(ends, done + CHECKED_ENTRIES, side="right"))
        stop = min(max(stop, first + 1), n)
        yield first, x[first:stop]
        first = stop


def dense_rows(x, name, dtype):
    """Return sparse rows as an array of ``dtype``, shape (k, d).

    Raises
    ------
    DataError
        If there is not enough memory, or a value is too large for ``dtype``.
    """
    try:
        out = np.zeros(x.shape, dtype=dtype)
    except MemoryError:
        raise DataError(too_large_dense(name, x.shape, dtype)) from None
    for first, part in parts_of(x):
        at, rows = part.where(), first + part.row_numbers()
        with np.errstate(over="ignore"):
            out[rows, part.indices[at]] = part.values[at]
    return out


def too_large_dense(name, shape, dtype):
    """Return the message for rows that memory does not hold when made dense."""
    k, n_columns = shape
    size_bytes = k * n_columns * np.dtype(dtype).itemsize
    return (
        f"{name}: {k} rows of {n_columns} features on a rank, made dense, need "
        f"{size_bytes / 2**30:.1f} GiB; keep them sparse ([data] sparse = true), or "
        "use more ranks or fewer features"
    )
