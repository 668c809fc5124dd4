"""The state of a training in memory, from which other ranks take what they need."""

import numpy as np

from pympi_train.checkpoint.shares import own_share
from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.comm.shared import require_space
from pympi_train.errors import ConfigError
from pympi_train.flat.boxes import stretch_around, within
from pympi_train.flat.state import Region, State

ALIGNED_BYTES = 64  # where a tensor starts
MAX_BYTES = 2**30  # of a call: Open MPI 5 has none beyond 2^31 - 1


class Handover:
    """A state that some ranks hold, and all ranks of a communicator can read.

    Parameters
    ----------
    comm : MPI.Comm
    state : State, optional
        This rank's part; None: it has none. The arrays may change afterwards.
    about : object, optional
        Plain values for all ranks; rank 0's count.

    Attributes
    ----------
    state : State
        Of all ranks; its arrays are fetched when they are asked for.
    about : object
        Rank 0's.

    Raises
    ------
    MemoryError, MPI.Exception
        If a rank has no room for a copy of its share.

    Notes
    -----
    Collective; ``free`` is too.

    Each element is copied once, on one of the ranks that have it; ranks with replicas
    copy equal shares. Reading (MPI_Get) is not collective. Until ``free``, ranks that
    do not read have to make MPI calls again and again: a library that moves data in
    software answers only there.
    """

    def __init__(self, comm, state=None, about=None):
        state = State() if state is None else state
        share = own_share(comm, state)
        regions, n_bytes = _places(share)
        self._window, block = _window(comm, n_bytes)
        self._window.Lock_all()
        with together(comm):
            for (_, region), (*_, at) in zip(share, regions):
                own = block[at : at + region.array.nbytes].view(region.array.dtype)
                own.reshape(region.array.shape)[...] = region.array
        self._block = block  # the window does not keep it alive
        values, self.about = comm.bcast((state.values, about), root=0)
        more = {k: v for k, v in state.values.items() if k not in values}
        self._window.Sync()  # before others read, and before this rank does
        everyones = comm.allgather((regions, more))
        self._window.Sync()
        self.state = State()
        self.state.values.update(values)
        for rank, (theirs, others) in enumerate(everyones):
            for key, value in others.items():
                self.state.values.setdefault(key, value)
            for name, shape, box, n_blocks, dtype, at in theirs:
                own = tuple(high - low for low, high in box)
                array = RemoteTensor(self._window, rank, at, own, np.dtype(dtype))
                region = Region(shape, box, array, n_blocks)
                self.state.regions.setdefault(name, []).append(region)

    def free(self):
        """Free the copies; further calls do nothing. Collective."""
        self._block = self.state = None
        if self._window is not None:
            self._window.Unlock_all()
            self._window.Free()
        self._window = None


def _places(share):
    """Return what says where regions are in a block of bytes, and the block's size."""
    regions, at = [], 0
    for name, region in share:
        dtype, (shape, box, array, n_blocks) = region.array.dtype.str, region
        regions.append((name, shape, box, n_blocks, dtype, at))
        at += -(-array.nbytes // ALIGNED_BYTES) * ALIGNED_BYTES
    return regions, at


def _window(comm, n_bytes):
    """Return a window, and the array of bytes that is this rank's part. Collective.

    Ranks of a node read each other's parts seven times as fast if they lie in shared
    memory, so they do if there is room on every node.
    """
    from mpi4py import MPI

    node, has_room = comm.Split_type(MPI.COMM_TYPE_SHARED), True
    n_bytes = max(n_bytes, ALIGNED_BYTES)  # for libraries that know no empty part
    of_node_bytes = node.allreduce(n_bytes)
    node.Free()
    try:
        require_space(of_node_bytes, "take other memory")
    except ConfigError:
        has_room = False
    if reduced(comm, [has_room], op="MIN")[0]:
        window = MPI.Win.Allocate(n_bytes, 1, comm=comm)
        return window, np.frombuffer(window.tomemory(), np.uint8)
    block = np.empty(n_bytes, np.uint8)
    return MPI.Win.Create(block, 1, comm=comm), block


class RemoteTensor:
    """A tensor in the memory of another rank, of which parts are fetched.

    Parameters
    ----------
    window : MPI.Win
        In units of bytes, and locked by this rank.
    rank : int
        The rank that has it.
    at : int
        Its first byte in that rank's part of the window.
    shape : tuple of int
    dtype : dtype
    """

    def __init__(self, window, rank, at, shape, dtype):
        self._window, self._rank, self._at = window, rank, at
        self.shape, self.dtype = shape, dtype

    def __getitem__(self, index):
        """Return the part that ``index``, a tuple of slices, selects."""
        box = tuple(s.indices(n)[:2] for s, n in zip(index, self.shape))
        start, stop, outer = stretch_around(self.shape, box)
        found = np.empty(stop - start, self.dtype)
        as_bytes = found.view(np.uint8)
        first = self._at + start * self.dtype.itemsize
        for low in range(0, as_bytes.size, MAX_BYTES):
            piece = as_bytes[low : low + MAX_BYTES]
            self._window.Get(piece, self._rank, target=first + low)
        self._window.Flush(self._rank)
        shape = [high - low for low, high in outer]
        return found.reshape(shape)[within(box, outer)]
