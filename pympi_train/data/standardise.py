"""Mean and standard deviation of columns over ranks, and scaling by them."""

from dataclasses import dataclass

import numpy as np

from pympi_train.comm.collectives import reduced
from pympi_train.comm.sums.tree import Forest, add_chain
from pympi_train.comm.sums.tree_sum import TreeSum
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


@dataclass(frozen=True)
class Moments:
    """Count, mean and spread of each column over rows of all ranks; without NaN.

    Attributes
    ----------
    count : ndarray, shape (d,), float64
        Number of values.
    mean : ndarray, shape (d,), float64
        The constant itself, if the column is constant.
    deviation : ndarray, shape (d,), float64
        Population standard deviation (divided by n, not n - 1).
    is_constant : ndarray of bool, shape (d,)
    """

    count: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    is_constant: np.ndarray

    @property
    def scaling(self):
        """The Scaling to mean 0 and deviation 1."""
        # Columns so small that their squares underflow are not scaled either.
        unusable = self.is_constant | (self.deviation == 0)
        return Scaling(self.mean, np.where(unusable, 1.0, self.deviation))


def fit_scaling(x, keep, comm, n_groups=None):
    """Return the Scaling by `fit_moments`; not finite if squares are too large."""
    return fit_moments(x, keep, comm, n_groups).scaling


@np.errstate(over="ignore", invalid="ignore")
def fit_moments(x, keep, comm, n_groups=None):
    r"""Return mean and standard deviation of each column over the rows of all ranks.

    Each rank computes count, mean and centred sum of squares :math:`M` of its
    rows. The parts are merged by

    .. math::
        \mu = \frac{\sum_r n_r \mu_r}{\sum_r n_r}, \qquad
        M = \sum_r M_r + \sum_r n_r (\mu_r - \mu)^2,

    which, unlike the plain sum of squares, never subtracts two large numbers. All
    means are relative to one value. Otherwise means of a column with a large offset
    would be rounded at the size of the offset, and their differences would lose the
    significant digits.

    Parameters
    ----------
    x : array_like, shape (k, d)
        This rank's rows; NaN stands for a missing value. They are read in chunks, so a
        memory map stays on disk.
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
    Moments
        The deviation is not finite if squares of a column are too large for float64.

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
    if n_groups is None:
        parts = [local_moments(x, keep, slice(0, len(x)))]
    else:
        n = int(reduced(comm, [len(x)])[0])
        cuts = own_cuts(n, n_groups, comm.rank, comm.size).tolist()
        groups = [slice(*cut) for cut in zip(cuts, cuts[1:])]
        parts = [local_moments(x, keep, rows) for rows in groups]
    return combine_moments(parts, n_groups, comm)


@np.errstate(over="ignore", invalid="ignore")
def combine_moments(parts, n_groups, comm):
    """Return the Moments of all ranks' parts, results of `local_moments`. Collective.

    Parameters
    ----------
    parts : list
        One part, or with ``n_groups`` one per group that this rank owns.
    n_groups : int or None
        As for `fit_moments`.
    comm : MPI.Comm
    """
    counts, origins, means, squares, lows, highs = zip(*parts)
    d = len(counts[0])

    def add_up(parts):
        if n_groups is None:
            return reduced(comm, parts[0])
        return sum_by_tree(parts, n_groups, comm)

    common = reduced(comm, np.min(origins, axis=0), op="MIN")
    means = [mean.copy() for mean in means]
    for count, mean, origin in zip(counts, means, origins):
        np.add(mean, origin - common, out=mean, where=count > 0)
    sums = add_up([np.concatenate([c * mean, c]) for c, mean in zip(counts, means)])
    n = np.maximum(sums[d:], 1.0)
    total_mean = sums[:d] / n
    centred = add_up(
        [
            square + c * (mean - total_mean) ** 2
            for c, mean, square in zip(counts, means, squares)
        ]
    )
    low = reduced(comm, np.min(lows, axis=0), op="MIN")
    high = reduced(comm, np.max(highs, axis=0), op="MAX")
    is_constant = low >= high
    return Moments(
        sums[d:],
        np.where(is_constant, low, common + total_mean),
        np.sqrt(centred / n),
        is_constant,
    )


@np.errstate(invalid="ignore")  # inf - inf of parts without rows, which is not used
def join_moments(a, b):
    """Return two parts, results of `local_moments`, as the part of all their rows."""
    origin = np.where(np.isinf(a[1]), b[1], a[1])
    shifted = [
        (part[0], np.where(part[0] > 0, part[2] + (part[1] - origin), 0.0), part[3])
        for part in (a, b)
    ]
    count, mean, centred = merge(*shifted)
    lows, highs = np.fmin(a[4], b[4]), np.fmax(a[5], b[5])
    return count, origin, mean, centred, lows, highs


def sum_by_tree(parts, n_groups, comm):
    """Return the sum of ``parts``, one array per group of this rank. Collective."""
    tree, forest = TreeSum(comm, n_groups), Forest(n_groups)
    for group, part in enumerate(parts, start=tree.first):
        chain = forest.push((0, group), part)
        if len(chain) > 1:
            add_chain(chain)
    out = np.empty_like(parts[0])
    tree.sum(forest.values, np.ones(n_groups, dtype=bool), out)
    return out


def local_moments(x, keep, some):
    """Return count, origin, mean, centred sum of squares, minimum, maximum of rows.

    Each has shape (d,). The origin is the first value, or infinite if there is none.
    The mean is relative to the origin.
    """
    d = x.shape[1]
    count, mean, centred = np.zeros(d), np.zeros(d), np.zeros(d)
    low, high = np.full(d, np.inf), np.full(d, -np.inf)
    origin = np.full(d, np.inf)
    for rows in row_chunks(x, some):
        part = np.asarray(x[rows][keep[rows]], dtype=np.float64)
        if len(part) == 0:
            continue
        lacks = np.isnan(part)
        has_gaps = bool(lacks.any())
        n = np.full(d, float(len(part))) - lacks.sum(axis=0)
        first = part[np.argmin(lacks, axis=0), np.arange(d)]  # NaN: no value
        origin = np.where(np.isinf(origin) & ~np.isnan(first), first, origin)
        low = np.fmin(low, np.fmin.reduce(part, axis=0) if has_gaps else part.min(0))
        high = np.fmax(high, np.fmax.reduce(part, axis=0) if has_gaps else part.max(0))
        part -= origin
        if has_gaps:
            part[lacks] = 0
        part_mean = part.sum(axis=0) / np.maximum(n, 1)
        part -= part_mean
        if has_gaps:
            part[lacks] = 0
        part *= part
        own = n, part_mean, part.sum(axis=0)
        count, mean, centred = merge((count, mean, centred), own)
    return count, origin, mean, centred, low, high


def merge(a, b):
    """Return two (count, mean, centred sum of squares) merged by Chan's formula.

    With weights, the count is their sum.
    """
    (n_a, mean_a, centred_a), (n_b, mean_b, centred_b) = a, b
    n = n_a + n_b
    share = np.where(n > 0, n, 1)  # both are 0 if there is no value
    shift = mean_b - mean_a
    mean = mean_a + shift * (n_b / share)
    return n, mean, centred_a + centred_b + shift**2 * (n_a * n_b / share)


def row_chunks(x, some=None):
    """Yield slices of rows of ``x`` whose float64 copy fits ``CHUNK_BYTES``.

    The slices cover the rows in the slice ``some``, by default all rows.
    """
    first, stop = (0, len(x)) if some is None else (some.start, some.stop)
    step = max(1, CHUNK_BYTES // (8 * max(1, x.shape[1])))
    for start in range(first, stop, step):
        yield slice(start, min(start + step, stop))
