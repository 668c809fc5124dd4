"""The sum over ranks by slices: each rank adds up one, and broadcasts it."""

import functools
from collections import deque

import numpy as np

from pympi_train.comm.slices import Slices
from pympi_train.flat.parts import even_cuts

CHUNK = 2**20  # elements combined at once: scratch of a few MiB, whatever the block
AHEAD = 4  # pieces of a sum whose scatter is under way, and whose gather is
PIECE = 2**19  # elements of such a piece, up to so many ranks that
LEAST_SLICE = 2**12  # is a rank's slice of it: messages of fewer take as long


def piece_for(size):
    """Return the elements of a piece among ``size`` ranks."""
    return max(PIECE, LEAST_SLICE * size)


def sum_by_slices(comm, block, chunk=None):
    """Replace ``block`` by its sum over the ranks, added up in rank order.

    Parameters
    ----------
    comm : MPI.Comm
    block : ndarray, shape (n,), contiguous
    chunk : int, optional
        Elements combined at once.

    Notes
    -----
    Collective.
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
    free, chunk = [], chunk or piece_for(comm.size)

    def start(part):
        slices = Slices(comm, _even_sizes(part.size, comm.size))
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


@functools.lru_cache(maxsize=16)
def _even_sizes(n, n_ranks):
    """Return the elements of each rank's slice; found once for chunks of a length."""
    return np.diff(even_cuts(0, n, n_ranks))


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
