"""Transport of GPU blocks by a CUDA-aware MPI."""

from pympi_train.backends.cuda import device as cuda
from pympi_train.backends.cuda import ops
from pympi_train.comm import collectives


class Direct:
    """Transport of device arrays by MPI calls; interface as `host.HostTransport`.

    MPI does not know CUDA streams. The operations queued on a block must therefore be
    complete before a call, and the call is complete when it returns. Only blocking
    calls are used, since Open MPI does not support GPU memory in the others [1]_.

    References
    ----------
    .. [1] https://www.open-mpi.org/faq/?category=runcuda
    """

    name = "mpi"
    passed_over = ""

    def __init__(self, comm):
        self._comm = comm

    def sum(self, block, ready=()):
        """Replace ``block`` by its sum over the ranks. Collective.

        Parameters
        ----------
        ready : sequence of (int, int, event)
            Stretches of the block, each with the event after which it is written, in
            the order of these events. The first stretches are summed while the device
            computes the last. By default, the whole block is one stretch.
        """
        for start, stop, event in ready or [(0, block.size, cuda.record())]:
            cuda.wait_for(event)
            collectives.sum_in_place(self._comm, block[start:stop])

    def reduce_scatter(self, block, counts, out):
        """Write the sum of this rank's slice of ``block`` to ``out``. Collective."""
        if self._comm.size == 1:
            ops.copy(block, out)
            return
        cuda.wait_for_device()
        collectives.reduce_scatter(self._comm, block, counts, out)

    def all_gather(self, block, counts):
        """Fill the other ranks' slices of ``block``. Collective."""
        cuda.wait_for_device()
        collectives.all_gather(self._comm, block, counts)

    def slices(self, sizes):
        """Return the `Slices` of blocks of bytes with these slice sizes."""
        return _Slices(self._comm, sizes)

    def abandon(self):
        """There is nothing to free."""

    def free(self):
        """There is nothing to free."""


class _Slices:
    """As `slices.Slices`, but each exchange is complete when it is started."""

    def __init__(self, comm, sizes):
        from pympi_train.comm.slices import Slices

        self._slices = Slices(comm, sizes)
        self.own = self._slices.own

    def start_scatter(self, block, parts):
        cuda.wait_for_device()
        self._slices.scatter(block, parts)
        return Done()

    def start_gather(self, block):
        cuda.wait_for_device()
        self._slices.gather(block)
        return Done()


class Done:
    """A completed request."""

    def Wait(self):  # noqa: N802: as MPI's
        """There is nothing to wait for."""
