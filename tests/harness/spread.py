"""Rows spread over ranks in good and in awkward ways, and batches that miss a rank."""

import numpy as np

import pympi_train as pt
from pympi_train.data.epoch import EpochPlan
from pympi_train.data.partition import bounds

# even: as the readers do. hole: unequal, and a rank in the middle (of two: the last)
# has no row. last: the last rank has everything.
SPREADS = ("even", "hole", "last")


def cuts(n, size, how):
    """Return the P + 1 cuts of ``n`` rows: rank r has rows cuts[r] to cuts[r + 1]."""
    if how == "even" or size == 1:
        return bounds(n, size)
    if how == "last":
        return [0] * size + [n]
    empty, shares = size // 2, np.arange(1.0, size + 1)
    shares[empty] = 0
    return [0, *np.rint(n * shares.cumsum() / shares.sum()).astype(int).tolist()]


def own(comm, n, how):
    """Return the slice of ``n`` rows that this rank has."""
    cut = cuts(n, comm.size, how)
    return slice(cut[comm.rank], cut[comm.rank + 1])


def dataset(comm, how, x, y, weights=None):
    """Return the Dataset of this rank's part of arrays that every rank has whole."""
    mine = own(comm, len(x), how)
    weights = None if weights is None else weights[mine]
    return pt.Dataset(x[mine], y[mine], weights=weights, comm=comm)


def require_empty_shares(comm, data, batch_size, *, seed, epochs):
    """Assert that in each epoch some rank has no row of some batch."""
    for epoch in range(epochs):
        plan = EpochPlan(data.n, seed, epoch, data.start, data.stop, batch_size)
        sizes = [len(plan.batch(b)) for b in range(plan.n_batches)]
        empty = comm.allgather(sizes.count(0))
        assert sum(empty) > 0, "every rank has a row of every batch: not what is tested"
        assert plan.n_batches * comm.size > sum(empty)
