"""Blocks on a GPU whose memory MPI itself reads and writes."""

from pympi_train.backends.cuda import device as cuda
from pympi_train.backends.cuda import ops
from pympi_train.comm import collectives


class Direct:
    """MPI's calls on device arrays; as `host.HostTransport`.

    MPI knows nothing of streams: what is queued on a block has to be done before a
    call, and the call is done when it returns. Blocking calls alone: Open MPI does not
    take a GPU's memory in others [1]_.

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
            Stretches of the block, and when each is written, in that order: the first
            are summed while the device still computes the last. All of it now, if left
            out.
        """
        for start, stop, event in ready or [(0, block.size, cuda.record())]:
            cuda.wait_for(event)
            collectives.sum_in_place(self._comm, block[start:stop])

    def reduce_scatter(self, block, counts, out):
        """Give every rank the sum of its slice of ``block``. Collective."""
        if self._comm.size == 1:
            ops.copy(block, out)
            return
        cuda.wait_for_device()
        collectives.reduce_scatter(self._comm, block, counts, out)

    def all_gather(self, block, counts):
        """Fill all slices of ``block`` but the own one. Collective."""
        cuda.wait_for_device()
        collectives.all_gather(self._comm, block, counts)

    def slices(self, sizes):
        """Return exchanges of blocks of bytes that are cut into these sizes."""
        return _Slices(self._comm, sizes)

    def abandon(self):
        """There is nothing to free."""

    def free(self):
        """There is nothing to free."""


class _Slices:
    """As `slices.Slices`, but what is started is done."""

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
    """A request that has come to its end."""

    def Wait(self):  # noqa: N802: as MPI's
        """There is nothing to wait for."""
