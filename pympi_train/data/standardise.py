"""Mean and variance over ranks, and columns scaled by them."""

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
        In units of the column. The scale of a constant column is 1, and its mean
        the constant itself, so that it becomes exactly zero.
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
        """Return float64 ``x``, shape (k, d), in units of the columns again."""
        return x * self.scale + self.mean


@np.errstate(over="ignore", invalid="ignore")
def fit_scaling(x, keep, comm, n_groups=None):
    r"""Mean and standard deviation of each column over the rows of all ranks.

    Each rank computes count, mean and centred sum of squares :math:`M` of its
    rows; parts are merged by

    .. math::
        \mu = \frac{\sum_r n_r \mu_r}{\sum_r n_r}, \qquad
        M = \sum_r M_r + \sum_r n_r (\mu_r - \mu)^2,

    which subtracts nothing large from anything large, as the sum of squares does. All
    means are relative to one row: differences of means that are rounded as numbers of
    the size of the column's offset would lose the digits that count.

    Parameters
    ----------
    x : array_like, shape (k, d)
        This rank's rows; read in chunks, so a memory map stays on disk.
    keep : ndarray of bool, shape (k,)
        Which of them count: the training rows.
    comm : MPI.Comm
        The ranks that share the rows.
    n_groups : int, optional
        For the same bits at every number of ranks: the parts are so many groups of
        rows in place of the ranks' rows, and ``keep`` keeps all. The rows lie where
        their groups are (`data.groups`).

    Returns
    -------
    Scaling
        With the population deviation (divided by n, not n - 1); not finite where
        squares of a column are too large for float64.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    A column is constant when its minimum equals its maximum, which is exact in any
    order of summation; a computed deviation of 1e-17 on some rank counts and 0 on
    others must not decide.

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
    # Numbers so small that their square underflows: kept as they are, too.
    unusable = constant | (deviation == 0)
    return Scaling(
        np.where(constant, low, common + total_mean),
        np.where(unusable, 1.0, deviation),
    )


def _sum_by_tree(parts, n_groups, comm):
    """Return the sum of ``parts``, one array for each own group. Collective."""
    tree, forest = TreeSum(comm, n_groups), Forest(n_groups)
    for group, part in enumerate(parts, start=tree.first):
        chain = forest.push((0, group), part)
        if len(chain) > 1:
            add_chain(chain)
    out = np.empty_like(parts[0])
    tree.sum(forest.values, np.ones(n_groups, dtype=bool), out)
    return out


def _local_moments(x, keep, some):
    """Count, origin, mean, centred sum of squares, minimum, maximum of some rows.

    The mean is relative to the origin: the first row, infinite where there is none.
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
    """Merge two (count, mean, centred sum of squares) by Chan's formula."""
    (n_a, mean_a, centred_a), (n_b, mean_b, centred_b) = a, b
    n = n_a + n_b
    if n == 0:
        return a
    shift = mean_b - mean_a
    mean = mean_a + shift * (n_b / n)
    return n, mean, centred_a + centred_b + shift**2 * (n_a * n_b / n)


def row_chunks(x, some=None):
    """Yield slices of rows of ``x`` whose float64 copy fits ``CHUNK_BYTES``.

    Of those in the slice ``some``; of all if it is left out.
    """
    first, stop = (0, len(x)) if some is None else (some.start, some.stop)
    step = max(1, CHUNK_BYTES // (8 * max(1, x.shape[1])))
    for start in range(first, stop, step):
        yield slice(start, min(start + step, stop))
