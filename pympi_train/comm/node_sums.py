"""Sums of small blocks over the ranks of one node, through shared memory."""

import os

import numpy as np

from pympi_train.comm.checks import agreed_within
from pympi_train.comm.shared import LINE_BYTES, SharedBlock, padded, require_space
from pympi_train.comm.watch.guard import collective
from pympi_train.errors import ConfigError, RankMismatchError

READ_BYTES = 2**19  # maximum that a rank reads for one sum: see `NodeSums`
LEAST_BYTES = 256  # a block of this size fits with any number of ranks
SPINS = 200  # polls of a flag, about 10 us, before a rank yields its CPU
UFUNCS = {"SUM": np.add, "MIN": np.minimum, "MAX": np.maximum}


class NodeSums:
    """Shared memory in which the ranks of a communicator on one node add up blocks.

    For a sum, a rank

    - copies its blocks to shared memory,
    - sets its flag and waits for the flags of the other ranks,
    - adds up the blocks of all ranks, in rank order.

    All ranks therefore get the same bits. Two buffers are used alternately: a rank
    that sets its flag for a sum has finished reading the sum before.

    Parameters
    ----------
    comm : MPI.Intracomm
        A guarded communicator whose ranks all share memory.

    Attributes
    ----------
    most_bytes : int
        Maximum total size of the blocks of one sum, each rounded up to whole cache
        lines.

    Raises
    ------
    MPI.Exception
        If there is no memory to share.

    Notes
    -----
    Collective; every method is too. The watchdog sees the waits.

    Each of P ranks reads P blocks, whereas an MPI Allreduce sends at most two blocks
    per rank. ``most_bytes`` is therefore proportional to 1 / P.
    ``scripts/bench/node_sums.py`` measures both.

    A rank that waits longer than a few microseconds also lets MPI make progress: the
    late rank may itself be waiting for a message from this rank.
    """

    def __init__(self, comm):
        from mpi4py import MPI

        size, rank = comm.size, comm.rank
        lines = max(LEAST_BYTES, READ_BYTES // size) // LINE_BYTES
        self.most_bytes = lines * LINE_BYTES
        self._comm, self._look_for = comm, MPI.Intracomm.Iprobe
        part_bytes = LINE_BYTES + 2 * self.most_bytes  # flag and two places
        self._shared = SharedBlock(comm, [part_bytes] * size, np.uint8)
        self._fence = self._shared.fence
        self._flags = memoryview(self._shared.array).cast("B").cast("q")
        flags = [part_bytes // 8 * other for other in range(size)]
        self._own, self._count = flags.pop(rank), 0
        self._others, self._views = flags, {}

    def free(self):
        """Free the memory. Collective."""
        self._views.clear()
        self._flags.release()
        self._shared.free()

    def reduce(self, blocks, ufunc):
        """Replace each of ``blocks`` by its reduction over the ranks with ``ufunc``."""
        key = tuple([(block.size, block.dtype.char) for block in blocks])
        views = self._views.get(key) or self._find_views(key, blocks)
        turn = self._count & 1
        n_bytes, places = views[turn]
        for block, (own, _) in zip(blocks, places):
            own[:] = block
        at, flags = 1 + turn, self._flags
        flags[self._own + at] = n_bytes
        self.meet()
        for other in self._others:
            if flags[other + at] != n_bytes:
                self._raise_mismatch(n_bytes, flags[other + at])
        for block, (_, parts) in zip(blocks, places):
            if len(parts) == 2:
                ufunc(parts[0], parts[1], out=block)
            else:
                ufunc.reduce(parts, axis=0, out=block)

    def _find_views(self, key, blocks):
        """Return (bytes, [(own buffer, all ranks' buffers), ...]) for both turns."""
        size, rank = self._comm.size, self._comm.rank
        parts, found = self._shared.array.reshape(size, -1), []
        for turn in range(2):
            pairs, start = [], LINE_BYTES + turn * self.most_bytes
            for block in blocks:
                places = parts[:, start : start + block.nbytes].view(block.dtype)
                pairs.append((places[rank], places))
                start += padded(block.nbytes, np.uint8)
            found.append((sum(block.nbytes for block in blocks), pairs))
        self._views[key] = found
        return found

    def _raise_mismatch(self, mine, other):
        """Raise on all ranks: each rank sees another rank with a different size."""
        raise agreed_within(
            self._comm,
            RankMismatchError(
                f"ranks sum blocks of different sizes: {mine} bytes on rank "
                f"{self._comm.rank}, {other} on another one"
            ),
        )

    def meet(self):
        """Wait for all ranks; make their earlier writes visible to all ranks."""
        flags = self._flags
        self._fence()  # publish this rank's writes
        self._count = flags[self._own] = count = self._count + 1
        for other in self._others:
            if flags[other] < count:
                self._await(other, count)
        self._fence()  # before reading the other ranks' writes

    def _await(self, other, count):
        flags = self._flags
        for _ in range(SPINS):
            if flags[other] >= count:
                return
        while flags[other] < count:
            os.sched_yield()
            self._look_for(self._comm)


@collective("Allreduce")
def reduce(comm, *blocks, op="SUM"):
    """Replace each block by its sum, minimum or maximum over the ranks. Collective.

    Parameters
    ----------
    comm : MPI.Intracomm
        A communicator with `node_sums`.
    blocks : ndarrays, shape (n,), contiguous
        At most ``most_bytes`` in total, each rounded up to whole cache lines.
    op : {"SUM", "MIN", "MAX"}
    """
    comm.node_sums.reduce(blocks, UFUNCS[op])


@collective("Barrier")
def meet(comm):
    """Wait for all ranks of ``comm``, which has `node_sums`. Collective."""
    comm.node_sums.meet()


def node_sums(comm):
    """Return the NodeSums of ``comm``, or None if it has none.

    A communicator has NodeSums if it is guarded, its ranks share a node, and the node
    has enough shared memory. They are created at the first call, and freed with the
    communicator.

    Notes
    -----
    Collective at the first call.
    """
    found = getattr(comm, "node_sums", None)  # False before the first call
    if found is False:
        found = comm.node_sums = _make(comm)
    return found


def fits(comm, block):
    """Return whether the `node_sums` of ``comm``, if any, can sum ``block``.

    Room for a block of one cache line, such as a control message, is left beside it.
    Collective as `node_sums`.
    """
    shared = node_sums(comm) if comm.size > 1 else None
    return bool(shared) and block.nbytes <= shared.most_bytes - 2 * LINE_BYTES


def _make(comm):
    from mpi4py import MPI

    if not _share_a_node(comm):
        return None
    try:
        require_space(2 * READ_BYTES, "")
        has_room = True
    except ConfigError:
        has_room = False
    if not comm.allreduce(has_room, op=MPI.LAND):
        return None
    try:
        return NodeSums(comm)
    except MPI.Exception:  # on all ranks
        return None


def _share_a_node(comm):
    """Return whether all ranks of ``comm`` can share memory. Collective."""
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    try:
        return node.size == comm.size
    finally:
        node.Free()
