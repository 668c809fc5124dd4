"""Collectives on flat blocks, in place, of any length."""

MAX_COUNT = 2**30  # elements a call: Open MPI 5 has no calls beyond 2^31 - 1


def sum_in_place(comm, block):
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
    from mpi4py import MPI

    for start in range(0, block.size, MAX_COUNT):
        comm.Allreduce(MPI.IN_PLACE, block[start : start + MAX_COUNT], op=MPI.SUM)


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
    """Return float64 ``values``, shape (n,), combined over the ranks by ``op``.

    ``op`` is SUM, MIN or MAX.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    import numpy as np
    from mpi4py import MPI

    values = np.array(values, dtype=np.float64)
    if comm.size > 1:
        comm.Allreduce(MPI.IN_PLACE, values, op=getattr(MPI, op))
    return values


def from_rank_0(comm, *values):
    """Return rank 0's float64 ``values`` on every rank.

    Decisions by clock, patience or line search are rank 0's: ranks that each
    decide alone may part ways over the last bit.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    import numpy as np

    block = np.array(values, dtype=np.float64)
    if comm.size > 1:
        comm.Bcast(block, root=0)
    return tuple(block.tolist())
