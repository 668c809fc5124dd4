"""Transport of GPU blocks by NCCL, without the host."""

from functools import partial

from pympi_train.backends.cuda import device as cuda
from pympi_train.backends.cuda import ops
from pympi_train.backends.cuda.nccl import Communicator, group
from pympi_train.comm.watch.guard import note_wait


class NcclTransport:
    """Transport by NCCL calls on their own stream; interface as `host.HostTransport`.

    The host does not wait. Events order an exchange after the operations queued on its
    blocks so far, and before the operations queued later.

    Parameters
    ----------
    comm : MPI.Comm
        Ranks with a GPU each.
    uid : bytes
        ``cuda_nccl.unique_id()`` of rank 0.

    Notes
    -----
    Collective. If a rank does not call, the devices of the other ranks wait, and so do
    their hosts at the next request for a result. Each wait for the device is therefore
    recorded as a wait in ``comm``, so that the watchdog sees it.
    """

    name = "nccl"
    passed_over = ""

    def __init__(self, comm, uid):
        self._comm, self._stream = comm, cuda.side_stream("nccl")
        self._note = partial(note_wait, comm)
        self._note(partial(self._connect, uid))  # this waits for the other ranks too
        cuda.make_waits(self._note)

    def _connect(self, uid):
        size, rank = self._comm.size, self._comm.rank
        self._nccl = Communicator(size, rank, uid, self._stream)

    def sum(self, block, ready=()):
        """Replace ``block`` by its sum over the ranks. Collective.

        ``ready`` as for `direct.Direct.sum`.
        """
        for start, stop, event in ready or [(0, block.size, cuda.record())]:
            self._stream.wait_event(event)
            if stop > start:
                self._nccl.all_reduce(block[start:stop])
        self._join()

    def reduce_scatter(self, block, counts, out):
        """Write the sum of this rank's slice of ``block`` to ``out``. Collective."""
        if self._comm.size == 1:
            ops.copy(block, out)
            return
        self._stream.wait_event(cuda.record())
        end = 0
        with group():  # NCCL's own reduce-scatter supports only slices of equal size
            for rank, count in enumerate(counts):
                part, end = block[end : end + count], end + count
                if count:
                    target = out if rank == self._comm.rank else part
                    self._nccl.reduce(part, target, rank)
        self._join()

    def all_gather(self, block, counts):
        """Fill the other ranks' slices of ``block``. Collective."""
        if self._comm.size == 1:
            return
        self._stream.wait_event(cuda.record())
        end = 0
        with group():
            for rank, count in enumerate(counts):
                part, end = block[end : end + count], end + count
                if count:
                    self._nccl.broadcast(part, rank)
        self._join()

    def slices(self, sizes):
        """Return the `Slices` of blocks of bytes with these slice sizes."""
        return _Slices(self._comm, self._nccl, self._stream, sizes)

    def _join(self):
        """Order the operations queued from now on after the exchange."""
        cuda.stream().wait_event(cuda.record(self._stream))

    def abandon(self):
        """Free the resources after a failure, without waiting for other ranks."""
        cuda.no_longer_make(self._note)
        self._nccl.abort()

    def free(self):
        """Free NCCL's communicator. Collective."""
        self._nccl.free()
        cuda.no_longer_make(self._note)


class _Slices:
    """As `slices.Slices`, for device arrays."""

    def __init__(self, comm, nccl, stream, sizes):
        self._rank, self._nccl, self._stream = comm.rank, nccl, stream
        ends = [0]
        for size in sizes:
            ends.append(ends[-1] + int(size))
        self._places = [slice(a, b) for a, b in zip(ends, ends[1:])]
        self.own = self._places[comm.rank]

    def start_scatter(self, block, parts):
        self._stream.wait_event(cuda.record())
        with group():
            for rank, place in enumerate(self._places):
                if place.stop > place.start:
                    self._nccl.send(_bytes(block[place]), rank)
                if parts.shape[1]:
                    self._nccl.receive(_bytes(parts[rank]), rank)
        return _Request(cuda.record(self._stream))

    def start_gather(self, block):
        self._stream.wait_event(cuda.record())
        with group():
            for rank, place in enumerate(self._places):
                if place.stop > place.start:
                    self._nccl.broadcast(_bytes(block[place]), rank)
        return _Request(cuda.record(self._stream))


class _Request:
    def __init__(self, event):
        self._event = event

    def Wait(self):  # noqa: N802: as MPI's
        """Order the operations queued from now on after the exchange."""
        cuda.stream().wait_event(self._event)


def _bytes(array):
    return array.view("u1")
