"""Memory that the ranks of a node share, in an MPI window."""

import os
import sys
import traceback
import weakref

import numpy as np

from pympi_train.errors import ConfigError

FOLDER = "/dev/shm"  # where MPI libraries keep shared memory, on Linux
LINE_BYTES = 64  # parts that begin at a multiple share no cache line


class SharedBlock:
    """One block of memory of a node, in parts that lie one after the other.

    Parameters
    ----------
    node : MPI.Comm
        Ranks that can share memory.
    sizes : sequence of int, length node.size
        Elements of each rank's part; may be 0.
    dtype : dtype

    Attributes
    ----------
    array : ndarray, shape (sum of sizes,)
        All parts, zeroed; the same memory on every rank.
    starts : tuple of int, length node.size + 1
        First element of each part, and the end.
    fence : callable
        One half of `sync`, where something else is the barrier: to be called on both
        sides of it. Not collective.

    Notes
    -----
    Collective, and so are ``sync`` and ``free``. A rank that stays away leaves the
    others waiting.

    Each rank zeroes its own part before anyone else touches it: on a machine with
    several memory nodes, a page lies near the rank that first wrote to it.

    Call `require_space` first.
    """

    def __init__(self, node, sizes, dtype):
        from mpi4py import MPI

        self._node, self.dtype = node, np.dtype(dtype)
        self.starts = (0, *np.cumsum(sizes).tolist())
        n_bytes = sizes[node.rank] * self.dtype.itemsize
        if node.rank == node.size - 1:
            n_bytes += LINE_BYTES  # to begin at a cache line; no window of 0 bytes
        self._window = MPI.Win.Allocate_shared(n_bytes, 1, comm=node)
        self._window.Lock_all(MPI.MODE_NOCHECK)  # the epoch that Sync asks for
        self.fence = self._window.Sync
        memory, _ = self._window.Shared_query(MPI.PROC_NULL)  # the first part there is
        skip = -memory.address % LINE_BYTES
        # By address: a memoryview ends with the part it was asked for.
        end = self.starts[-1] * self.dtype.itemsize
        whole = MPI.buffer.fromaddress(memory.address + skip, end)
        self.array = np.frombuffer(whole, self.dtype)
        self.part(node.rank)[:] = 0
        self.sync()

    def part(self, rank):
        """Return the part of a rank of the node. Not collective."""
        return self.array[self.starts[rank] : self.starts[rank + 1]]

    def sync(self):
        """Wait for all ranks of the node; what each has written is seen by all."""
        self.fence()  # own writes first,
        self._node.Barrier()
        self.fence()  # then reads of what the others wrote

    def free(self):
        """Free the memory, unless a rank still has an array that lies in it.

        Such arrays would end the process when they are next read. The memory is kept
        until the job ends then. Those in finished frames of an exception that is being
        handled are dropped: a failed model's locals are views of parameters.

        Returns
        -------
        bool
            Whether it was freed.
        """
        if self._window is None:
            return True
        owner = weakref.ref(self.array)  # views of it keep it
        self.array = self.fence = None
        if owner() is not None:
            _clear_frames(sys.exc_info()[1])
        held = self._node.allreduce(owner() is not None)
        self._window.Unlock_all()
        if not held:
            self._window.Free()
        self._window = None
        return not held


def _clear_frames(error):
    """Drop the local variables of the frames that an exception has left."""
    errors, seen = [error], set()
    while errors:
        error = errors.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            traceback.clear_frames(error.__traceback__)
            errors += [error.__cause__, error.__context__]


def padded(size, dtype):
    """Return ``size`` elements rounded up to whole cache lines."""
    step = LINE_BYTES // np.dtype(dtype).itemsize
    return -(-size // step) * step


def require_space(n_bytes, instead, folder=FOLDER):
    """Raise ConfigError unless a node has ``n_bytes`` of shared memory left.

    A process that touches memory beyond the limit of ``/dev/shm``, 64 MiB in many
    containers, ends by SIGBUS without a word.

    Parameters
    ----------
    n_bytes : int
        That will be allocated on this node.
    instead : str
        What to do without it.
    folder : str
        Where shared memory lies; nothing is checked where there is none.
    """
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):  # no such folder, or no such call
        return
    free = found.f_bavail * found.f_frsize
    if free < n_bytes:
        raise ConfigError(
            f"shared memory: {n_bytes:,} bytes are needed in {folder} of this node, "
            f"but {free:,} are free. Make it larger (docker run --shm-size, mount -o "
            f"remount,size=), or {instead}"
        )
