"""The sum over ranks by slices: each rank adds up one slice and broadcasts it."""

import functools
from collections import deque

import numpy as np

from pympi_train.comm.slices import Slices
from pympi_train.flat.parts import even_cuts

CHUNK = 2**20  # elements combined at once: a few MiB of scratch for any block size
AHEAD = 4  # maximum pieces in flight in the scatter, and as many in the gather
PIECE = 2**19  # elements of a piece, unless slices would be below LEAST_SLICE
LEAST_SLICE = 2**12  # elements of a rank's slice: smaller messages take as long


def piece_for(size):
    """Return the number of elements of a piece for ``size`` ranks."""
    return max(PIECE, LEAST_SLICE * size)


def sum_by_slices(comm, block, chunk=None):
    """Replace ``block`` by its sum over the ranks, added in rank order.

    Parameters
    ----------
    comm : MPI.Comm
    block : ndarray, shape (n,), contiguous
    chunk : int, optional
        Elements combined at once.

    Notes
    -----
    Collective.
    A rank sends ``2 n (P - 1) / P`` elements, in two messages per chunk to each other
    rank: reduce-scatter and allgather by direct exchange, [1]_ section 4.

    Several chunks are in flight while one is combined, so that the network is always
    busy. Without overlap, the sum took twice as long at 1 Gbit/s, because each chunk
    waited twice for the slowest rank.

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
        slices = Slices(comm, even_sizes(part.size, comm.size))
        size = comm.size * (slices.own.stop - slices.own.start)
        scratch = free.pop() if free else np.empty(size, block.dtype)
        if scratch.size < size:  # rounding may make a shorter chunk's slice larger
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
def even_sizes(n, n_ranks):
    """Return the number of elements of each rank's slice; cached, do not change it."""
    return np.diff(even_cuts(0, n, n_ranks))


def flow(items, start, combine, finish):
    """Pass items through three stages, with up to AHEAD items between two stages.

    Parameters
    ----------
    items : iterable
    start, combine, finish : callable
        The stages. ``start`` takes an item; ``combine`` and ``finish`` take the result
        of the stage before. Each stage processes the items in order.
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
