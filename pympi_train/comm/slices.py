"""A block in as many slices as ranks: each rank gets its slice from all, and gives it.

Two messages a rank pair, ``2 n (P - 1) / P`` elements a rank in all, at any ``P``: as
many as an ideal ring. What a rank does with the ``P`` versions of its slice is its own
affair: add them in a fixed order, or unpack them first.
"""

from collections import deque

import numpy as np

from pympi_train.backends.parts import even_cuts

CHUNK = 2**20  # elements combined at once: scratch of a few MiB, whatever the block
AHEAD = 4  # pieces of a sum whose scatter is under way, and whose gather is
PIECE = 2**19  # elements of such a piece


class Slices:
    """Two exchanges on blocks that are cut alike on every rank.

    Parameters
    ----------
    comm : MPI.Comm
    sizes : sequence of int, length P
        Elements of each rank's slice; together below 2^31.

    Attributes
    ----------
    own : slice
        Where this rank's slice lies in a block.
    """

    def __init__(self, comm, sizes):
        self._comm = comm
        self._counts = np.array(sizes, dtype=np.int32)
        self._starts = np.concatenate(([0], np.cumsum(self._counts)[:-1]))
        start, size = int(self._starts[comm.rank]), int(self._counts[comm.rank])
        self.own = slice(start, start + size)
        self._own_counts = np.full(comm.size, size, dtype=np.int32)
        self._own_starts = np.arange(comm.size) * size

    def scatter(self, block, parts):
        """Send every rank its slice of ``block``; receive all versions of the own one.

        Parameters
        ----------
        block : ndarray, shape (sum of sizes,)
        parts : ndarray, shape (P, own size), same dtype
            Row r comes from rank r.

        Notes
        -----
        Collective (Alltoallv). A rank that stays away leaves the others waiting.
        """
        self._comm.Alltoallv(
            [block, (self._counts, self._starts)],
            [parts, (self._own_counts, self._own_starts)],
        )

    def start_scatter(self, block, parts):
        """As `scatter`, but a request is returned. Collective (Ialltoallv)."""
        return self._comm.Ialltoallv(
            [block, (self._counts, self._starts)],
            [parts, (self._own_counts, self._own_starts)],
        )

    def start_gather(self, block):
        """As `gather`, but a request is returned. Collective (Iallgatherv)."""
        from mpi4py import MPI

        return self._comm.Iallgatherv(
            MPI.IN_PLACE, [block, (self._counts, self._starts)]
        )

    def gather(self, block):
        """Fill all slices of ``block`` but the own one, which the others receive.

        Notes
        -----
        Collective (Allgatherv). A rank that stays away leaves the others waiting.
        """
        from mpi4py import MPI

        self._comm.Allgatherv(MPI.IN_PLACE, [block, (self._counts, self._starts)])


def sum_by_slices(comm, block, chunk=PIECE):
    """Replace ``block`` by its sum over the ranks, added up in rank order.

    Parameters
    ----------
    comm : MPI.Comm
    block : ndarray, shape (n,), contiguous
    chunk : int
        Elements combined at once.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    Sends ``2 n (P - 1) / P`` elements a rank, in two messages to each other rank a
    chunk: reduce-scatter and allgather by direct exchange, [1]_ section 4.

    Some chunks are on their way while one is combined, so that the network is busy
    from beginning to end: one chunk after the other took twice the seconds at
    1 Gbit/s, since each waited for the slowest rank, twice.

    References
    ----------
    .. [1] R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of Collective
       Communication Operations in MPICH", Int. J. High Perform. Comput. Appl. 19
       (2005).
    """
    if comm.size == 1:
        return
    free = []

    def start(part):
        slices = Slices(comm, np.diff(even_cuts(0, part.size, comm.size)))
        size = comm.size * (slices.own.stop - slices.own.start)
        scratch = free.pop() if free else np.empty(size, block.dtype)
        if scratch.size < size:  # by rounding, the own slice of a shorter chunk
            scratch = np.empty(size, block.dtype)
        parts = scratch[:size].reshape(comm.size, -1)
        return slices.start_scatter(part, parts), slices, part, parts, scratch

    def combine(state):
        request, slices, part, parts, scratch = state
        request.Wait()
        np.add.reduce(parts, axis=0, out=part[slices.own])
        free.append(scratch)
        return slices.start_gather(part)

    parts = (block[i : i + chunk] for i in range(0, block.size, chunk))
    flow(parts, start, combine, lambda request: request.Wait())


def flow(items, start, combine, finish):
    """Take items through three stages, with AHEAD of them between two stages.

    Parameters
    ----------
    items : iterable
    start, combine, finish : callable
        Each takes what the one before returned, ``start`` an item; in order.
    """
    scattered, gathered = deque(), deque()
    for item in items:
        if len(scattered) == AHEAD:
            gathered.append(combine(scattered.popleft()))
        if len(gathered) > AHEAD:
            finish(gathered.popleft())
        scattered.append(start(item))
    gathered.extend(map(combine, scattered))
    for state in gathered:
        finish(state)
