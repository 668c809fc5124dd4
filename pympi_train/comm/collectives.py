"""Collectives on flat blocks, in place, of any length."""

import numpy as np

from pympi_train.comm import node_sums as near
from pympi_train.comm.node_sums import node_sums

MAX_COUNT = 2**30  # elements a call: Open MPI 5 has no calls beyond 2^31 - 1


def sum_in_place(comm, block, most=None):
    """Replace ``block`` by its sum over the ranks.

    Each rank holds the gradient *sum* over its own samples. The result is therefore
    the gradient sum of the whole batch, however the samples are distributed; a rank
    may have no samples. The update divides by the weight of the batch
    (``grad_scale``), because it reads the block anyway.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the batch.
    block : ndarray, shape (n,), float32 or float64, contiguous
        The flat gradient block.
    most : int, optional
        Maximum number of elements per MPI call, less than MAX_COUNT. Small pieces
        stay in cache.

    Notes
    -----
    Collective.
    At best, each of ``P`` ranks sends ``2 n (P - 1) / P`` elements, the lower bound
    of [1]_.

    References
    ----------
    .. [1] P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for
       clusters of workstations", J. Parallel Distrib. Comput. 69 (2009).
    """
    if comm.size == 1:
        return
    shared = node_sums(comm)
    if shared and block.nbytes <= shared.most_bytes and isinstance(block, np.ndarray):
        near.reduce(comm, block)  # MPI sums blocks on a GPU, if it is CUDA-aware
        return
    from mpi4py import MPI

    most = most or MAX_COUNT
    for start in range(0, block.size, most):
        comm.Allreduce(MPI.IN_PLACE, block[start : start + most], op=MPI.SUM)


def reduce_scatter(comm, block, counts, out):
    """Write the sum over the ranks of this rank's slice of ``block`` to ``out``.

    The slices are consecutive, in rank order, and fill the block.

    Parameters
    ----------
    comm : MPI.Comm
    block : ndarray, shape (sum of counts,), contiguous
        Not changed.
    counts : sequence of int, length P
        Number of elements of each rank's slice; may be 0.
    out : ndarray, shape (counts[rank],), same dtype, contiguous
        Receives the sum. Must not overlap ``block``.

    Notes
    -----
    Collective.
    At best, a rank sends ``n - counts[rank]`` elements, half as many as for a sum of
    the whole block.
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
    """Fill the slices of the other ranks in ``block``; send this rank's slice to them.

    Parameters
    ----------
    comm, block, counts
        As for `reduce_scatter`. The block is changed in place.

    Notes
    -----
    Collective.
    A rank sends at most ``(P - 1) counts[rank]`` elements. At best it sends the mean
    number of elements of the other ranks' slices.
    """
    if comm.size == 1:
        return
    from mpi4py import MPI

    for stretch, pieces, starts in calls_of(counts):
        comm.Allgatherv(MPI.IN_PLACE, [block[stretch], (pieces, starts)])


class Counts(tuple):
    """Number of elements of each rank's slice, with the MPI calls computed once.

    With many ranks, computing the calls takes longer than making them.
    """

    _found = None

    @property
    def calls(self):
        """MPI calls of at most MAX_COUNT elements: see `calls_of`."""
        if self._found is None:
            self._found = _find_calls(self)
        return self._found


def calls_of(counts):
    """Return [(stretch, pieces, starts), ...], one entry per MPI call.

    Parameters
    ----------
    counts : sequence of int, length P
        Number of elements of each rank's slice. Pass a ``Counts`` if the same counts
        are used again.

    Returns
    -------
    list of (slice, ndarray, ndarray)
        For each call: the stretch of the block that it covers, at most MAX_COUNT
        elements; the number of elements of each rank's slice in that stretch, int32;
        and the offset of each of these pieces within the stretch, int32.
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
    """Return the bytes that a rank sends in an ideal ring sum: ``2 n (P - 1) / P``."""
    return 2 * n_bytes * (size - 1) // size


def broadcast(comm, block, root=0):
    """Replace ``block``, a contiguous array of any length, by that of rank ``root``.

    Notes
    -----
    Collective.
    """
    if comm.size == 1:
        return
    for start in range(0, block.size, MAX_COUNT):
        comm.Bcast(block[start : start + MAX_COUNT], root=root)


def reduced(comm, values, op="SUM"):
    """Return ``values`` as float64, any shape, reduced over the ranks by ``op``.

    ``op`` is SUM, MIN or MAX.

    Notes
    -----
    Collective.
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

    Rank 0 makes the decisions that depend on a clock, on patience or on a line
    search. Ranks that decide for themselves may disagree because of the last bit.

    Notes
    -----
    Collective.
    """
    block = np.array(values, dtype=np.float64)
    if comm.size > 1:
        comm.Bcast(block, root=0)
    return tuple(block.tolist())
