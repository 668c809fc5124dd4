"""Which rank writes which part of a state that several ranks hold."""

import hashlib

import numpy as np

from pympi_train.flat.boxes import boxes_of, within
from pympi_train.flat.state import Region

LEAST_BYTES = 2**22  # of a writer: with less, opening its file would take longest


def own_share(comm, state):
    """Return the regions that this rank writes, as (tensor's name, Region) pairs.

    The shares of all ranks together hold each element of the state, and what several
    ranks hold only once: they write equal shares of it.

    Parameters
    ----------
    comm : MPI.Comm
    state : State
        This rank's.

    Returns
    -------
    list of (str, Region)
        Their arrays are views of the state's.

    Notes
    -----
    Collective. A rank receives 16 bytes for each block of each rank.
    """
    names = sorted(comm.allreduce(set(state.blocks), op=_union))
    own = np.zeros((len(names), 2), np.uint64)
    for row, name in zip(own, names):
        if name in state.blocks:
            row[:] = _digest(state, state.blocks[name])
    everyones = np.empty((comm.size, *own.shape), np.uint64)
    comm.Allgather(own, everyones)
    found = []
    for i, name in enumerate(names):
        if name not in state.blocks:
            continue
        holders = np.flatnonzero((everyones[:, i] == own[i]).all(axis=1))
        tensors = state.blocks[name]
        total = sum(r.array.nbytes for t in tensors for r in state.regions[t])
        number = int(np.searchsorted(holders, comm.rank))
        start, stop = stretch(total, number, len(holders))
        found += _cut(state, tensors, start, stop)
    return found


def stretch(n_bytes, number, n_holders):
    """Return the bytes, from start to stop, that one of several holders writes.

    Parameters
    ----------
    n_bytes : int
        Of what all of them hold.
    number, n_holders : int
        Which of the holders, and how many there are. Those that write are spread
        evenly over them, so over the nodes.
    """
    n_writers = max(1, min(n_holders, n_bytes // LEAST_BYTES))
    # Writer w is the first holder of the w-th of n_writers equal stretches.
    writer = -(-number * n_writers // n_holders)
    if writer * n_holders // n_writers != number or writer >= n_writers:
        return 0, 0
    return n_bytes * writer // n_writers, n_bytes * (writer + 1) // n_writers


def _union(a, b):
    return a | b


def _digest(state, tensors):
    """Return two numbers that tell the regions of some tensors from other ones."""
    found = hashlib.blake2b(digest_size=16)
    for name in tensors:
        for region in state.regions[name]:
            found.update(repr((name, region.shape, region.box)).encode())
    return np.frombuffer(found.digest(), np.uint64)


def _cut(state, tensors, start, stop):
    """Return the parts of regions with the bytes ``start`` to ``stop``."""
    found, first = [], 0
    for name in tensors:
        for region in state.regions[name]:
            each = region.array.itemsize
            # An element belongs to the stretch in which its first byte lies.
            low, high = (-(-(at - first) // each) for at in (start, stop))
            low, high = max(low, 0), min(high, region.array.size)
            first += region.array.nbytes
            if low < high:
                found += [(name, part) for part in _parts(region, low, high)]
    return found


def _parts(region, low, high):
    """Yield the Regions of elements ``low`` to ``high`` of a region."""
    begins = [pair[0] for pair in region.box]
    for inner in boxes_of(region.array.shape, low, high):
        box = tuple((a + at, b + at) for (a, b), at in zip(inner, begins))
        array = np.asarray(region.array[within(box, region.box)])
        yield Region(region.shape, box, array, region.n_blocks)
