"""Scaling of sparse rows: fitted over ranks, applied to the entries alone."""

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.comm.collectives import reduced
from pympi_train.data.formats.sparse.sparse_rows import parts_of
from pympi_train.data.groups import own_cuts
from pympi_train.data.sources.arrays import is_mapped
from pympi_train.data.sources.sparse import FileCSR
from pympi_train.data.standardise import Moments, Scaling, sum_by_tree
from pympi_train.errors import DataError


def fit_sparse_moments(x, keep, comm, n_groups=None):
    r"""Return the Moments of sparse columns over the rows of all ranks.

    An absent entry counts as 0: with the sum of its entries :math:`S` and their number
    :math:`m`, a column of n rows has

    .. math::
        \mu = S / n, \qquad
        n \sigma^2 = \sum_i (x_i - \mu)^2 + (n - m) \mu^2.

    Parameters
    ----------
    x : CSR, shape (k, d)
        This rank's rows. They are read in parts, so a file is not kept in memory.
    keep : ndarray of bool, shape (k,)
        The training rows.
    comm : MPI.Comm
    n_groups : int, optional
        Number of groups of rows, for the same bits on any number of ranks. Each row
        must be on the rank that owns its group (`data.groups`).

    Returns
    -------
    Moments
        The count is that of the entries.

    Notes
    -----
    Collective.
    """
    groups = [slice(0, len(x))]
    if n_groups is not None:
        n_rows = int(reduced(comm, [len(x)])[0])
        cuts = own_cuts(n_rows, n_groups, comm.rank, comm.size).tolist()
        groups = [slice(*cut) for cut in zip(cuts, cuts[1:])]
    n = float(reduced(comm, [np.count_nonzero(keep)])[0])

    def add_up(parts):
        if n_groups is None:
            return reduced(comm, parts[0])
        return sum_by_tree(parts, n_groups, comm)

    d = x.shape[1]
    sums = add_up([_sums(x, keep, rows) for rows in groups])
    counts, mean = sums[d:], sums[:d] / n
    squares = add_up([_centred_squares(x, keep, rows, mean) for rows in groups])
    squares += (n - counts) * mean**2
    low, high = _extremes(x, keep)
    low, high = reduced(comm, low, op="MIN"), reduced(comm, high, op="MAX")
    has_zero = counts < n
    low[has_zero] = np.minimum(low[has_zero], 0)
    high[has_zero] = np.maximum(high[has_zero], 0)
    return Moments(counts, mean, np.sqrt(squares / n), low >= high)


def fit_sparse_scaling(x, keep, comm, n_groups=None):
    """Return the Scaling of sparse columns by their standard deviation, not centred.

    The mean of the result is 0, so that absent entries stay absent. Arguments as for
    `fit_sparse_moments`. Collective.
    """
    scale = fit_sparse_moments(x, keep, comm, n_groups).scaling.scale
    return Scaling(np.zeros(len(scale)), scale)


def _entries(x, keep, rows=None):
    """Yield columns and values of the entries of kept rows, part by part."""
    for first, part in parts_of(x, rows):
        part = part[keep[first : first + len(part)]]
        at = part.where()
        yield part.indices[at], part.values[at]


def _sums(x, keep, rows):
    """Return the sum and the number of the entries of each column, shape (2 d,)."""
    d = x.shape[1]
    out = np.zeros((2, d))
    for indices, values in _entries(x, keep, rows):
        out[0] += np.bincount(indices, values, minlength=d)
        out[1] += np.bincount(indices, minlength=d)
    return out.reshape(-1)


def _centred_squares(x, keep, rows, mean):
    out = np.zeros(x.shape[1])
    for indices, values in _entries(x, keep, rows):
        squares = np.square(values - mean[indices])
        out += np.bincount(indices, squares, minlength=len(out))
    return out


def _extremes(x, keep):
    """Return the smallest and largest entry of each column; infinite without entries.
    """
    low, high = np.full(x.shape[1], np.inf), np.full(x.shape[1], -np.inf)
    for indices, values in _entries(x, keep):
        np.minimum.at(low, indices, values)
        np.maximum.at(high, indices, values)
    return low, high


def sparse_features(x, preparation, dtype, resident_bytes, why_not_finite):
    """Return sparse rows as the model takes them, all checked.

    Rows of a file that are larger than ``resident_bytes`` stay there.

    Parameters
    ----------
    x : CSR
    preparation : Preparation
        That keeps zeros.
    dtype : dtype
        Of the model.
    resident_bytes : int
    why_not_finite : str
        The message if a value is too large for ``dtype``.
    """
    dtype = np.dtype(dtype)
    is_plain = preparation.scaling is None and x.dtype == dtype

    def prepare(part):
        values = part.values
        if not is_plain:
            values = prepared_values(part, preparation, dtype)
            if not np.isfinite(values).all():
                raise DataError(why_not_finite)
        return part.with_values(values)

    if is_mapped(x.indices) and x.nbytes > resident_bytes:
        if is_plain:
            return x
        rows = FileCSR(x, prepare, dtype)
        for first, part in parts_of(x):
            rows[first : first + len(part)]  # raises at a value that is too large
        return rows
    x = prepare(x.compact())
    own = (np.array(a) if is_mapped(a) else a for a in (x.indices, x.values))
    return CSR(x.starts, x.stops, *own, x.shape[1])


@np.errstate(over="ignore", invalid="ignore")
def prepared_values(x, preparation, dtype):
    """Return the values of compact sparse rows, scaled, limited and cast."""
    values = x.values
    if preparation.scaling is not None:
        values = values / preparation.scaling.scale[x.indices]
        if preparation.clip is not None:
            np.clip(values, -preparation.clip, preparation.clip, out=values)
    return values.astype(dtype, copy=False)
