"""Collectives on flat blocks, in place, of any length."""

import numpy as np

from pympi_train.comm import node_sums as near
from pympi_train.comm.node_sums import node_sums

MAX_COUNT = 2**30  # elements a call: Open MPI 5 has no calls beyond 2^31 - 1


def sum_in_place(comm, block, most=None):
    """Replace ``block`` by its sum over the ranks.

    Each rank holds the gradient *sum* over its own samples, so the result is the
    gradient sum of the whole batch however the samples are spread, a rank without
    any included. The division by the batch's weight is left to the update
    (``grad_scale``), which reads the block anyway.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the batch.
    block : ndarray, shape (n,), float32 or float64, contiguous
        The flat gradient block.
    most : int, optional
        Elements a call, less than MAX_COUNT: pieces that stay in cache.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    Moves ``2 n (P - 1) / P`` elements a rank at best, for ``P`` ranks: the lower
    bound of [1]_.

    References
    ----------
    .. [1] P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for
       clusters of workstations", J. Parallel Distrib. Comput. 69 (2009).
    """
    if comm.size == 1:
        return
    shared = node_sums(comm)
    if shared and block.nbytes <= shared.most_bytes and isinstance(block, np.ndarray):
        near.reduce(comm, block)  # a block on a GPU is for MPI, if it can
        return
    from mpi4py import MPI

    most = most or MAX_COUNT
    for start in range(0, block.size, most):
        comm.Allreduce(MPI.IN_PLACE, block[start : start + most], op=MPI.SUM)


def reduce_scatter(comm, block, counts, out):
    """Give every rank the sum over the ranks of its slice of ``block``.

    The slices lie one after the other in rank order and fill the block.

    Parameters
    ----------
    comm : MPI.Comm
    block : ndarray, shape (sum of counts,), contiguous
        Not changed.
    counts : sequence of int, length P
        Elements of each rank's slice; may be 0.
    out : ndarray, shape (counts[rank],), same dtype, contiguous
        Where the own slice's sum goes; no part of ``block``.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    Sends ``n - counts[rank]`` elements a rank at best, half of what a sum of the
    whole block takes.
    """
    if comm.size == 1:
        out[:] = block
        return
    from mpi4py import MPI

    end = 0
    for stretch, pieces, _ in calls_of(counts):
        n_own = int(pieces[comm.rank])
        own = out[end : end + n_own]
        comm.Reduce_scatter(block[stretch], own, recvcounts=pieces, op=MPI.SUM)
        end += n_own


def all_gather(comm, block, counts):
    """Fill all slices of ``block`` but the own one, which the others receive.

    Parameters
    ----------
    comm, block, counts
        As for `reduce_scatter`; the block is changed in place.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    Sends ``(P - 1) counts[rank]`` elements a rank at most, and at best as many as the
    others' slices have in the mean.
    """
    if comm.size == 1:
        return
    from mpi4py import MPI

    for stretch, pieces, starts in calls_of(counts):
        comm.Allgatherv(MPI.IN_PLACE, [block[stretch], (pieces, starts)])


class Counts(tuple):
    """Elements of each rank's slice, with the calls that these make, made once.

    At many ranks, to find them takes longer than the calls.
    """

    _found = None

    @property
    def calls(self):
        """Calls of at most MAX_COUNT elements: see `calls_of`."""
        if self._found is None:
            self._found = _find_calls(self)
        return self._found


def calls_of(counts):
    """Return [(stretch, pieces, starts), ...]: slices in calls of MAX_COUNT.

    Parameters
    ----------
    counts : sequence of int, length P
        Elements of each rank's slice; ``Counts`` where there are calls to come.

    Returns
    -------
    list of (slice, ndarray, ndarray)
        A call takes one stretch of the block, and from each slice the piece that lies
        there, int32, which starts in the stretch at so many elements.
    """
    return counts.calls if isinstance(counts, Counts) else _find_calls(counts)


def _find_calls(counts):
    ends = np.cumsum(np.asarray(counts, np.int64))
    total, begins, calls = int(ends[-1]), ends - counts, []
    for start in range(0, total, MAX_COUNT):
        stop = min(start + MAX_COUNT, total)
        pieces = np.minimum(ends, stop) - np.maximum(begins, start)
        pieces = np.maximum(pieces, 0)
        starts = np.cumsum(pieces) - pieces
        as_int = pieces.astype(np.int32), starts.astype(np.int32)
        calls.append((slice(start, stop), *as_int))
    return calls


def ring_bytes(n_bytes, size):
    """Return what an ideal ring sends a rank for a sum: ``2 n (P - 1) / P`` bytes."""
    return 2 * n_bytes * (size - 1) // size


def broadcast(comm, block):
    """Replace ``block``, a contiguous array of any length, by that of rank 0.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    if comm.size == 1:
        return
    for start in range(0, block.size, MAX_COUNT):
        comm.Bcast(block[start : start + MAX_COUNT], root=0)


def reduced(comm, values, op="SUM"):
    """Return float64 ``values``, of any shape, combined over the ranks by ``op``.

    ``op`` is SUM, MIN or MAX.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    from mpi4py import MPI

    values = np.array(values, dtype=np.float64, order="C")
    if comm.size == 1:
        return values
    shared = node_sums(comm)
    if shared and values.nbytes <= shared.most_bytes:
        with np.errstate(all="ignore"):
            near.reduce(comm, values.reshape(-1), op=op)
    else:
        comm.Allreduce(MPI.IN_PLACE, values, op=getattr(MPI, op))
    return values


def barrier(comm):
    """Wait for all ranks. Collective."""
    if comm.size > 1 and node_sums(comm):
        near.meet(comm)
    else:
        comm.Barrier()


def from_rank_0(comm, *values):
    """Return rank 0's float64 ``values`` on every rank.

    Decisions by clock, patience or line search are rank 0's: ranks that each
    decide alone may part ways over the last bit.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    block = np.array(values, dtype=np.float64)
    if comm.size > 1:
        comm.Bcast(block, root=0)
    return tuple(block.tolist())
