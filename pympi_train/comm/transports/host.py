"""Transport of blocks in host memory by MPI calls."""

from pympi_train.comm import collectives
from pympi_train.comm.slices import Slices


class HostTransport:
    """Transport of blocks in host memory by MPI calls.

    All transports have the methods ``sum``, ``reduce_scatter``, ``all_gather`` and
    ``slices``. Each is collective. The results of the transports are equal up to
    rounding.

    Parameters
    ----------
    comm : MPI.Comm

    Attributes
    ----------
    name : str
    passed_over : str
        Reasons against the preferred transports that were rejected, or empty.
    """

    name = "host"
    passed_over = ""

    def __init__(self, comm):
        self._comm = comm

    def sum(self, block):
        """Replace ``block`` by its sum over the ranks. Collective."""
        collectives.sum_in_place(self._comm, block)

    def reduce_scatter(self, block, counts, out):
        """Write the sum of this rank's slice of ``block`` to ``out``. Collective."""
        collectives.reduce_scatter(self._comm, block, counts, out)

    def all_gather(self, block, counts):
        """Fill the other ranks' slices of ``block``. Collective."""
        collectives.all_gather(self._comm, block, counts)

    def slices(self, sizes):
        """Return the `Slices` of blocks of bytes with these slice sizes."""
        return Slices(self._comm, sizes)

    def abandon(self):
        """There is nothing to free."""

    def free(self):
        """There is nothing to free."""
