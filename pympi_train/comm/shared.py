"""Memory that the ranks of a node share, in an MPI window."""

import os
import sys
import traceback
import weakref

import numpy as np

from pympi_train.errors import ConfigError

FOLDER = "/dev/shm"  # MPI libraries keep shared memory here on Linux
LINE_BYTES = 64  # parts that begin at a multiple of it share no cache line


class SharedBlock:
    """A block of memory shared by the ranks of a node, in consecutive parts.

    Parameters
    ----------
    node : MPI.Comm
        Ranks that can share memory.
    sizes : sequence of int, length node.size
        Number of elements of each rank's part; may be 0.
    dtype : dtype

    Attributes
    ----------
    array : ndarray, shape (sum of sizes,)
        All parts, zeroed; the same memory on every rank.
    starts : tuple of int, length node.size + 1
        First element of each part, and the end of the last part.
    fence : callable
        The memory fence of `sync`, for use with another barrier: call it before and
        after that barrier. Not collective.

    Notes
    -----
    Collective; ``sync`` and ``free`` are too.

    Each rank zeroes its own part before another rank writes to it. On a machine with
    several NUMA nodes, a page is then placed near the rank that owns it.

    Call `require_space` first.
    """

    def __init__(self, node, sizes, dtype):
        from mpi4py import MPI

        self._node, self.dtype = node, np.dtype(dtype)
        self.starts = (0, *np.cumsum(sizes).tolist())
        n_bytes = sizes[node.rank] * self.dtype.itemsize
        if node.rank == node.size - 1:
            n_bytes += LINE_BYTES  # for the alignment, and to avoid a 0-byte window
        self._window = MPI.Win.Allocate_shared(n_bytes, 1, comm=node)
        self._window.Lock_all(MPI.MODE_NOCHECK)  # Sync requires an access epoch
        self.fence = self._window.Sync
        memory, _ = self._window.Shared_query(MPI.PROC_NULL)  # the first part there is
        skip = -memory.address % LINE_BYTES
        # By address, because Shared_query's memoryview covers a single part.
        end = self.starts[-1] * self.dtype.itemsize
        whole = MPI.buffer.fromaddress(memory.address + skip, end)
        self.array = np.frombuffer(whole, self.dtype)
        self.part(node.rank)[:] = 0
        self.sync()

    def part(self, rank):
        """Return the part of the node's rank ``rank``. Not collective."""
        return self.array[self.starts[rank] : self.starts[rank + 1]]

    def sync(self):
        """Wait for all ranks of the node; make their writes visible to all ranks."""
        self.fence()  # publish this rank's writes
        self._node.Barrier()
        self.fence()  # before reading the other ranks' writes

    def free(self):
        """Free the memory, unless a rank still holds an array that lies in it.

        Reading such an array after the memory is freed would crash the process, so
        the memory is then kept until the job ends. Arrays in the finished frames of an
        exception that is being handled do not count: the frames are cleared. (The
        local variables of a failed model are views of parameters.)

        Returns
        -------
        bool
            Whether the memory was freed.
        """
        if self._window is None:
            return True
        owner = weakref.ref(self.array)  # views keep the array alive
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
    """Raise ConfigError unless the node has ``n_bytes`` of free shared memory.

    A process that touches memory beyond the limit of ``/dev/shm``, 64 MiB in many
    containers, is killed by SIGBUS without a message.

    Parameters
    ----------
    n_bytes : int
        Bytes that will be allocated on this node.
    instead : str
        The alternative that the error message suggests.
    folder : str
        Folder of the shared memory. Nothing is checked if it does not exist.
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
