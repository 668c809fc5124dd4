"""Blocks in host memory travel by MPI's own calls."""

from pympi_train.comm import collectives
from pympi_train.comm.slices import Slices


class HostTransport:
    """Blocks in host memory: MPI's own calls.

    What all transports have: ``sum``, ``reduce_scatter``, ``all_gather`` and
    ``slices``, collective each, with the same results up to rounding.

    Parameters
    ----------
    comm : MPI.Comm

    Attributes
    ----------
    name : str
    passed_over : str
        Why not the transports that would have come before it; empty if there are none.
    """

    name = "host"
    passed_over = ""

    def __init__(self, comm):
        self._comm = comm

    def sum(self, block):
        """Replace ``block`` by its sum over the ranks. Collective."""
        collectives.sum_in_place(self._comm, block)

    def reduce_scatter(self, block, counts, out):
        """Give every rank the sum of its slice of ``block``. Collective."""
        collectives.reduce_scatter(self._comm, block, counts, out)

    def all_gather(self, block, counts):
        """Fill all slices of ``block`` but the own one. Collective."""
        collectives.all_gather(self._comm, block, counts)

    def slices(self, sizes):
        """Return exchanges of blocks of bytes that are cut into these sizes."""
        return Slices(self._comm, sizes)

    def abandon(self):
        """There is nothing to free."""

    def free(self):
        """There is nothing to free."""
