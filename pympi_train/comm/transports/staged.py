"""Transport of GPU blocks through pinned host memory."""

from collections import deque

import numpy as np

from pympi_train.backends.cuda import device as cuda
from pympi_train.backends.cuda import ops
from pympi_train.comm import collectives
from pympi_train.comm.slices import Slices

CHUNK_BYTES = 4 * 2**20  # bytes that are copied and summed at once
AHEAD = 3  # chunks in flight to the host while one is summed


class Staged:
    """Transport by MPI calls on host copies; interface as `host.HostTransport`.

    Works with every MPI library. A sum goes through the host in chunks. One chunk is
    copied from the device, one is summed by MPI, and one is copied back at the same
    time.

    Parameters
    ----------
    comm : MPI.Comm
    """

    name = "staged"
    passed_over = ""

    def __init__(self, comm):
        self._comm, self.pool = comm, PinnedBlocks()
        self._down = cuda.side_stream("to host")
        self._up = cuda.side_stream("to device")

    def sum(self, block, ready=()):
        """Replace ``block`` by its sum over the ranks. Collective.

        ``ready`` as for `direct.Direct.sum`.
        """
        if self._comm.size == 1 or block.size == 0:
            return
        on_the_way = deque()
        for start, stop, event in ready or [(0, block.size, cuda.record())]:
            self._down.wait_event(event)
            step = max(1, CHUNK_BYTES // block.itemsize)
            for first in range(start, stop, step):
                part = block[first : min(first + step, stop)]
                if len(on_the_way) == AHEAD:
                    self._add(*on_the_way.popleft())
                on_the_way.append(self._fetch(part))
        for state in on_the_way:
            self._add(*state)
        cuda.stream().wait_event(cuda.record(self._up))

    def _fetch(self, part):
        """Queue a copy of ``part`` to the host.

        Returns the part, its host copy, the copy's buffer, and the event after which
        the copy is complete.
        """
        buffer = self.pool.take(part.nbytes)
        host = buffer.view(part.shape, part.dtype)
        cuda.queue_to_host(part, host, self._down)
        return part, host, buffer, cuda.record(self._down)

    def _add(self, part, host, buffer, there):
        """Sum a host copy over the ranks; queue its copy to the device. Collective."""
        cuda.wait_for(there)
        collectives.sum_in_place(self._comm, host)
        cuda.queue_to_device(host, part, self._up)
        self.pool.give_back(buffer, cuda.record(self._up))

    def reduce_scatter(self, block, counts, out):
        """Write the sum of this rank's slice of ``block`` to ``out``. Collective."""
        if self._comm.size == 1:
            ops.copy(block, out)
            return
        whole, own = self.pool.take(block.nbytes), self.pool.take(out.nbytes)
        host = whole.view(block.shape, block.dtype)
        mine = own.view(out.shape, out.dtype)
        cuda.queue_to_host(block, host)
        cuda.wait_for_device()
        collectives.reduce_scatter(self._comm, host, counts, mine)
        cuda.queue_to_device(mine, out)
        self.pool.give_back(whole, None)
        self.pool.give_back(own, cuda.record())

    def all_gather(self, block, counts):
        """Fill the other ranks' slices of ``block``. Collective."""
        if self._comm.size == 1:
            return
        buffer = self.pool.take(block.nbytes)
        host = buffer.view(block.shape, block.dtype)
        start = sum(counts[: self._comm.rank])
        own = slice(start, start + counts[self._comm.rank])
        cuda.queue_to_host(block[own], host[own])
        cuda.wait_for_device()
        collectives.all_gather(self._comm, host, counts)
        cuda.queue_to_device(host, block)
        self.pool.give_back(buffer, cuda.record())

    def slices(self, sizes):
        """Return the `Slices` of blocks of bytes with these slice sizes."""
        return _Slices(self._comm, self.pool, sizes)

    def abandon(self):
        """There is nothing to free: see ``free``."""

    def free(self):
        """There is nothing to free: pinned memory is freed with its last array."""


class _Slices:
    """As `slices.Slices`, for device arrays."""

    def __init__(self, comm, pool, sizes):
        self._slices, self._pool = Slices(comm, sizes), pool
        self.own = self._slices.own

    def start_scatter(self, block, parts):
        out, came = self._pool.take(block.nbytes), self._pool.take(parts.nbytes)
        mine = out.view(block.shape, block.dtype)
        theirs = came.view(parts.shape, parts.dtype)
        cuda.queue_to_host(block, mine)
        cuda.wait_for_device()
        request = self._slices.start_scatter(mine, theirs)
        return _Request(request, self._pool, theirs, parts, came, out)

    def start_gather(self, block):
        buffer = self._pool.take(block.nbytes)
        host = buffer.view(block.shape, block.dtype)
        cuda.queue_to_host(block[self.own], host[self.own])
        cuda.wait_for_device()
        request = self._slices.start_gather(host)
        return _Request(request, self._pool, host, block, buffer)


class _Request:
    """A request that ends with a copy to the device."""

    def __init__(self, request, pool, host, out, buffer, *done):
        self._request, self._pool, self._buffers = request, pool, (buffer, *done)
        self._host, self._out = host, out

    def Wait(self):  # noqa: N802: as MPI's
        """Wait for the exchange; queue the copy of the received data to the device."""
        self._request.Wait()
        cuda.queue_to_device(self._host, self._out)
        there = cuda.record()
        for buffer in self._buffers:
            self._pool.give_back(buffer, there)


class _Buffer:
    def __init__(self, n_bytes):
        self.memory, self.free_at = cuda.pinned(n_bytes, np.uint8), None

    def view(self, shape, dtype):
        """Return an array over the first bytes of the buffer."""
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return self.memory[:n_bytes].view(dtype).reshape(shape)


class PinnedBlocks:
    """Pinned buffers that are reused, because allocating one takes a millisecond.

    Sizes are rounded up to powers of two, so that there are few different sizes.
    """

    def __init__(self):
        self._free: dict = {}

    def take(self, n_bytes):
        """Return a buffer of at least ``n_bytes`` that no pending copy uses."""
        size = 1 << max(12, (n_bytes - 1).bit_length())
        free = self._free.setdefault(size, deque())
        if not free:
            return _Buffer(size)
        buffer = free.popleft()  # the buffer that was given back first
        if buffer.free_at is not None:
            cuda.wait_for(buffer.free_at)
        return buffer

    def give_back(self, buffer, event):
        """Take back a buffer that may be reused once ``event`` is reached."""
        buffer.free_at = event
        self._free[buffer.memory.nbytes].append(buffer)
