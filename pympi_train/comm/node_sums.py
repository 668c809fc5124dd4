"""Sums of small blocks over ranks of one node, through memory that all of them see."""

import os

import numpy as np

from pympi_train.comm.checks import agreed_within
from pympi_train.comm.shared import LINE_BYTES, SharedBlock, padded, require_space
from pympi_train.comm.watch.guard import collective
from pympi_train.errors import ConfigError, RankMismatchError

READ_BYTES = 2**19  # that a rank reads for one sum, at most: see `NodeSums`
LEAST_BYTES = 256  # of a block that has room at any number of ranks
SPINS = 200  # looks at a flag, some 10 us, before a rank lets others have its CPU
UFUNCS = {"SUM": np.add, "MIN": np.minimum, "MAX": np.maximum}


class NodeSums:
    """Memory in which the ranks of a communicator, all on one node, add up blocks.

    A rank copies its blocks to where the others can read them, raises its flag, waits
    for theirs, and adds up all by itself, in the order of ranks: so all of them get the
    same bits. There are two places for that, used by turns: who raises its flag for a
    sum has read all there was to read of the one before.

    Parameters
    ----------
    comm : MPI.Intracomm
        Guarded; all its ranks share memory.

    Attributes
    ----------
    most_bytes : int
        Of blocks that are summed at once, each rounded up to whole cache lines.

    Raises
    ------
    MPI.Exception
        If there is no memory to share.

    Notes
    -----
    Collective, and so is every method. A rank that stays away leaves the others
    waiting; the watchdog sees the wait.

    Each of P ranks reads P blocks, where an Allreduce of MPI sends two at most: so
    ``most_bytes`` goes with 1 / P. ``scripts/bench/node_sums.py`` shows both.

    Who waits longer than some microseconds also lets MPI look for messages: a rank that
    all wait for may itself wait until one of ours is sent.
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
        """Replace each of ``blocks`` by what ``ufunc`` makes of all ranks' blocks."""
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
        """Return, for both turns, (bytes, [(own place, places of all)]) of blocks."""
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
        """Raise on all ranks: each finds a rank whose blocks are of another size."""
        raise agreed_within(
            self._comm,
            RankMismatchError(
                f"ranks sum blocks of different sizes: {mine} bytes on rank "
                f"{self._comm.rank}, {other} on another one"
            ),
        )

    def meet(self):
        """Wait for all ranks; what each has written before is seen by all after."""
        flags = self._flags
        self._fence()  # own writes first,
        self._count = flags[self._own] = count = self._count + 1
        for other in self._others:
            if flags[other] < count:
                self._await(other, count)
        self._fence()  # then reads of what the others wrote

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
        Which has `node_sums`.
    blocks : ndarrays, shape (n,), contiguous
        Of at most ``most_bytes`` together, each rounded up to whole cache lines.
    op : {"SUM", "MIN", "MAX"}
    """
    comm.node_sums.reduce(blocks, UFUNCS[op])


@collective("Barrier")
def meet(comm):
    """Wait for all ranks of ``comm``, which has `node_sums`. Collective."""
    comm.node_sums.meet()


def node_sums(comm):
    """Return the NodeSums of ``comm``, or None where it has none.

    It has where it is guarded, its ranks share a node, and the node has memory for it.
    They are made when first asked for, and freed with the communicator.

    Notes
    -----
    Collective at the first call. A rank that stays away leaves the others waiting.
    """
    found = getattr(comm, "node_sums", None)  # False where none has been looked for
    if found is False:
        found = comm.node_sums = _make(comm)
    return found


def fits(comm, block):
    """Return whether ``block`` can be summed by the `node_sums` of ``comm``, if any.

    Beside a block of a line, such as that of a control message. Collective as they.
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
