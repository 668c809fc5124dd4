"""Exchange of a block in one slice per rank.

Each rank receives its slice from every rank, reduces it, and broadcasts it. This takes
two messages per pair of ranks, and ``2 n (P - 1) / P`` elements sent per rank for any
``P``, as many as in an ideal ring. The caller reduces the ``P`` versions of a slice: it
may add them in a fixed order, or unpack them first.
"""

import numpy as np


class Slices:
    """The scatter and the gather of blocks that have the same slices on every rank.

    Parameters
    ----------
    comm : MPI.Comm
    sizes : sequence of int, length P
        Number of elements of each rank's slice; their sum must be below 2^31.

    Attributes
    ----------
    own : slice
        Position of this rank's slice in a block.
    """

    def __init__(self, comm, sizes):
        self._comm = comm
        self._counts = np.array(sizes, dtype=np.int32)
        self._starts = np.concatenate(([0], np.cumsum(self._counts)[:-1]))
        start, size = int(self._starts[comm.rank]), int(self._counts[comm.rank])
        self.own = slice(start, start + size)
        self._own_counts = np.full(comm.size, size, dtype=np.int32)
        self._own_starts = np.arange(comm.size) * size

    def scatter(self, block, parts):
        """Send every rank its slice of ``block``; receive this rank's slice from each.

        Parameters
        ----------
        block : ndarray, shape (sum of sizes,)
        parts : ndarray, shape (P, own size), same dtype
            Row r receives the slice from rank r.

        Notes
        -----
        Collective (Alltoallv).
        """
        self._comm.Alltoallv(
            [block, (self._counts, self._starts)],
            [parts, (self._own_counts, self._own_starts)],
        )

    def start_scatter(self, block, parts):
        """Start a `scatter`; return its request. Collective (Ialltoallv)."""
        return self._comm.Ialltoallv(
            [block, (self._counts, self._starts)],
            [parts, (self._own_counts, self._own_starts)],
        )

    def start_gather(self, block):
        """Start a `gather`; return its request. Collective (Iallgatherv)."""
        from mpi4py import MPI

        return self._comm.Iallgatherv(
            MPI.IN_PLACE, [block, (self._counts, self._starts)]
        )

    def gather(self, block):
        """Fill the other ranks' slices of ``block``; send this rank's slice to them.

        Notes
        -----
        Collective (Allgatherv).
        """
        from mpi4py import MPI

        self._comm.Allgatherv(MPI.IN_PLACE, [block, (self._counts, self._starts)])
