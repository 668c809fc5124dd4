"""Mean and standard deviation of columns over ranks, and scaling by them."""

from dataclasses import dataclass

import numpy as np

from pympi_train.comm.collectives import reduced
from pympi_train.comm.sums.tree import Forest, TreeSum, add_chain
from pympi_train.data.groups import own_cuts

CHUNK_BYTES = 4 << 20  # float64 working set of one chunk of rows


@dataclass(frozen=True)
class Scaling:
    """``(x - mean) / scale`` for each column.

    Parameters
    ----------
    mean, scale : ndarray, shape (d,), float64
        In units of the column. A constant column has scale 1, and its mean is the
        constant itself, so that scaled values are exactly zero.
    """

    mean: np.ndarray
    scale: np.ndarray

    @np.errstate(over="ignore", invalid="ignore")
    def apply(self, x):
        """Return the scaled float64 copy of ``x``, shape (k, d)."""
        x = x - self.mean
        x /= self.scale
        return x

    def undo(self, x):
        """Return ``x``, shape (k, d), converted back to the columns' units, float64."""
        return x * self.scale + self.mean


@np.errstate(over="ignore", invalid="ignore")
def fit_scaling(x, keep, comm, n_groups=None):
    r"""Return mean and standard deviation of each column over the rows of all ranks.

    Each rank computes count, mean and centred sum of squares :math:`M` of its
    rows. The parts are merged by

    .. math::
        \mu = \frac{\sum_r n_r \mu_r}{\sum_r n_r}, \qquad
        M = \sum_r M_r + \sum_r n_r (\mu_r - \mu)^2,

    which, unlike the plain sum of squares, never subtracts two large numbers. All
    means are relative to one row. Otherwise means of a column with a large offset
    would be rounded at the size of the offset, and their differences would lose the
    significant digits.

    Parameters
    ----------
    x : array_like, shape (k, d)
        This rank's rows. They are read in chunks, so a memory map stays on disk.
    keep : ndarray of bool, shape (k,)
        The rows that count: the training rows.
    comm : MPI.Comm
        The ranks that share the rows.
    n_groups : int, optional
        Number of groups of rows, for the same bits on any number of ranks. The parts
        are then these groups instead of the ranks' rows, and ``keep`` must be all
        True. Each row must be on the rank that owns its group (`data.groups`).

    Returns
    -------
    Scaling
        With the population standard deviation (divided by n, not n - 1). It is not
        finite if squares of a column are too large for float64.

    Notes
    -----
    Collective.
    A column is constant if its minimum equals its maximum. This test is exact, whereas
    a computed deviation depends on the order of summation: it may be 1e-17 on some
    numbers of ranks and 0 on others.

    References
    ----------
    .. [1] T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating formulae and a
       pairwise algorithm for computing sample variances", COMPSTAT 1982.
    """
    d = x.shape[1]
    if n_groups is None:
        parts = [_local_moments(x, keep, slice(0, len(x)))]
    else:
        n = int(reduced(comm, [len(x)])[0])
        cuts = own_cuts(n, n_groups, comm.rank, comm.size).tolist()
        groups = [slice(*cut) for cut in zip(cuts, cuts[1:])]
        parts = [_local_moments(x, keep, rows) for rows in groups]

    def add_up(parts):
        if n_groups is None:
            return reduced(comm, parts[0])
        return _sum_by_tree(parts, n_groups, comm)

    counts, origins, means, squares, lows, highs = zip(*parts)
    common = reduced(comm, np.min(origins, axis=0), op="MIN")
    for count, mean, origin in zip(counts, means, origins):
        if count:
            mean += origin - common
    sums = add_up([np.append(c * mean, c) for c, mean in zip(counts, means)])
    n, total_mean = sums[d], sums[:d] / max(sums[d], 1.0)
    centred = add_up(
        [
            square + c * (mean - total_mean) ** 2
            for c, mean, square in zip(counts, means, squares)
        ]
    )
    low = reduced(comm, np.min(lows, axis=0), op="MIN")
    high = reduced(comm, np.max(highs, axis=0), op="MAX")
    constant = low >= high
    deviation = np.sqrt(centred / max(n, 1.0))
    # Columns so small that their squares underflow are not scaled either.
    unusable = constant | (deviation == 0)
    return Scaling(
        np.where(constant, low, common + total_mean),
        np.where(unusable, 1.0, deviation),
    )


def _sum_by_tree(parts, n_groups, comm):
    """Return the sum of ``parts``, one array per group of this rank. Collective."""
    tree, forest = TreeSum(comm, n_groups), Forest(n_groups)
    for group, part in enumerate(parts, start=tree.first):
        chain = forest.push((0, group), part)
        if len(chain) > 1:
            add_chain(chain)
    out = np.empty_like(parts[0])
    tree.sum(forest.values, np.ones(n_groups, dtype=bool), out)
    return out


def _local_moments(x, keep, some):
    """Return count, origin, mean, centred sum of squares, minimum, maximum of rows.

    The origin is the first row, or infinite if there is no row. The mean is relative
    to the origin.
    """
    d = x.shape[1]
    count, mean, centred = 0, np.zeros(d), np.zeros(d)
    low, high = np.full(d, np.inf), np.full(d, -np.inf)
    origin = np.full(d, np.inf)
    for rows in row_chunks(x, some):
        part = np.asarray(x[rows][keep[rows]], dtype=np.float64)
        if len(part) == 0:
            continue
        np.minimum(low, part.min(axis=0), out=low)
        np.maximum(high, part.max(axis=0), out=high)
        if count == 0:
            origin = part[0].copy()
        part -= origin
        part_mean = part.mean(axis=0)
        part -= part_mean
        part *= part
        count, mean, centred = merge(
            (count, mean, centred), (len(part), part_mean, part.sum(axis=0))
        )
    return count, origin, mean, centred, low, high


def merge(a, b):
    """Return two (count, mean, centred sum of squares) merged by Chan's formula."""
    (n_a, mean_a, centred_a), (n_b, mean_b, centred_b) = a, b
    n = n_a + n_b
    if n == 0:
        return a
    shift = mean_b - mean_a
    mean = mean_a + shift * (n_b / n)
    return n, mean, centred_a + centred_b + shift**2 * (n_a * n_b / n)


def row_chunks(x, some=None):
    """Yield slices of rows of ``x`` whose float64 copy fits ``CHUNK_BYTES``.

    The slices cover the rows in the slice ``some``, by default all rows.
    """
    first, stop = (0, len(x)) if some is None else (some.start, some.stop)
    step = max(1, CHUNK_BYTES // (8 * max(1, x.shape[1])))
    for start in range(first, stop, step):
        yield slice(start, min(start + step, stop))
