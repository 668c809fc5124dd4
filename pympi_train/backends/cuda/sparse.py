"""Products with sparse rows on the device: ``kernels/sparse.cu``."""

import numpy as np

from pympi_train.backends.csr import SparseRows
from pympi_train.backends.cuda.arrays import from_host
from pympi_train.backends.cuda.device import empty, queue_zeros
from pympi_train.backends.cuda.launch import NULL, blocks, launch, require_flat
from pympi_train.backends.entry_runs import EntryRuns, runs_of_columns, runs_of_rows

WARP = 32
ENTRIES_EACH = 4  # of a mean run, for each thread: the loop is unrolled so often


class DeviceCSR(SparseRows):
    """Sparse rows whose entries are on the device, by row and by column.

    Parameters
    ----------
    shape : (int, int)
    by_row, by_column : EntryRuns or None
        As `runs_of_rows` and `runs_of_columns` return, with arrays on the device. The
        latter is for gradients alone, the former for products with the rows.
    """

    def __init__(self, shape, by_row, by_column=None):
        super().__init__(shape, (by_row or by_column).values.dtype)
        self.by_row, self.by_column = by_row, by_column


def csr_to_device(x):
    """Return a compact CSR as a DeviceCSR without gradients; wait for the copies."""
    return DeviceCSR(x.shape, _there(runs_of_rows(x)))


def csr_for_gradient(x):
    """Return a compact CSR as a DeviceCSR for gradients alone; wait for the copies."""
    return DeviceCSR(x.shape, None, _there(runs_of_columns(x)))


def _there(runs):
    """Return EntryRuns with their arrays on the device."""
    there = [empty(a.shape, a.dtype) for a in runs.arrays]
    for array, out in zip(runs.arrays, there):
        from_host(array, out)
    return EntryRuns(*there, runs.n_pieces)


def csr_matmul(x, w, out):
    """``out <- X W``; see ``numpy.sparse``. ``x`` is a DeviceCSR."""
    _require_fit(x.shape, w.shape, out.shape)
    _multiply(x.by_row, w, out)


def csr_transposed_matmul(x, delta, out):
    """``out <- X^T delta``; see ``numpy.sparse``. ``x`` is a DeviceCSR."""
    _require_fit(x.shape[::-1], delta.shape, out.shape)
    queue_zeros(out)
    _multiply(x.by_column, delta, out)


def shared_lanes(n_entries, n_runs, c):
    """Return how many threads share a run, and how many outputs they have at once.

    Both are powers of two of at most a warp.
    """
    width = _power_of_two(min(c, WARP))
    groups = _power_of_two(n_entries / max(n_runs, 1) / ENTRIES_EACH)
    return min(WARP, width * groups), width


def _power_of_two(least):
    power = 1
    while power < min(least, WARP):
        power *= 2
    return power


def _multiply(runs, w, out):
    """Queue the sums of runs of rows of ``w``, and of those that are cut."""
    require_flat(w=w, out=out)
    if not runs.values.dtype == w.dtype == out.dtype:
        raise ValueError(
            f"sparse product: expected one dtype, got {runs.values.dtype}, {w.dtype} "
            f"and {out.dtype}"
        )
    n, c = len(runs.places), w.shape[1]
    if n == 0 or c == 0:
        return
    pieces = empty((runs.n_pieces, c), w.dtype) if runs.n_pieces else NULL
    lanes, width = shared_lanes(len(runs.values), n, c)
    entries = runs.starts, runs.places, runs.indices, runs.values, np.int64(n)
    how = np.int64(c), np.int32(lanes), np.int32(width)
    _launch("csr_times", n, lanes, out, (*entries, w, *how, out, pieces))
    n_joins = len(runs.join_places)
    if n_joins:
        how = np.int64(c), np.int32(WARP), np.int32(width)
        entries = runs.join_starts, runs.join_places, pieces, np.int64(n_joins)
        _launch("csr_join", n_joins, WARP, out, (*entries, *how, out))


def _launch(name, n_runs, lanes, out, args):
    grid = blocks(4 * n_runs * lanes, np.dtype(np.float32))  # one run for each `lanes`
    launch("sparse", name, out.dtype, grid, args)


def _require_fit(x, w, out):
    if x[1] != w[0] or out != (x[0], w[1]):
        raise ValueError(
            f"sparse product: expected shapes (m, k), (k, n), (m, n), got {x}, {w} and "
            f"{out}"
        )
