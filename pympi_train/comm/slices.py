"""A block in as many slices as ranks: each rank gets its slice from all, and gives it.

Two messages a rank pair, ``2 n (P - 1) / P`` elements a rank in all, at any ``P``: as
many as an ideal ring. What a rank does with the ``P`` versions of its slice is its own
affair: add them in a fixed order, or unpack them first.
"""

import numpy as np


class Slices:
    """Two exchanges on blocks that are cut alike on every rank.

    Parameters
    ----------
    comm : MPI.Comm
    sizes : sequence of int, length P
        Elements of each rank's slice; together below 2^31.

    Attributes
    ----------
    own : slice
        Where this rank's slice lies in a block.
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
        """Send every rank its slice of ``block``; receive all versions of the own one.

        Parameters
        ----------
        block : ndarray, shape (sum of sizes,)
        parts : ndarray, shape (P, own size), same dtype
            Row r comes from rank r.

        Notes
        -----
        Collective (Alltoallv). A rank that stays away leaves the others waiting.
        """
        self._comm.Alltoallv(
            [block, (self._counts, self._starts)],
            [parts, (self._own_counts, self._own_starts)],
        )

    def start_scatter(self, block, parts):
        """As `scatter`, but a request is returned. Collective (Ialltoallv)."""
        return self._comm.Ialltoallv(
            [block, (self._counts, self._starts)],
            [parts, (self._own_counts, self._own_starts)],
        )

    def start_gather(self, block):
        """As `gather`, but a request is returned. Collective (Iallgatherv)."""
        from mpi4py import MPI

        return self._comm.Iallgatherv(
            MPI.IN_PLACE, [block, (self._counts, self._starts)]
        )

    def gather(self, block):
        """Fill all slices of ``block`` but the own one, which the others receive.

        Notes
        -----
        Collective (Allgatherv). A rank that stays away leaves the others waiting.
        """
        from mpi4py import MPI

        self._comm.Allgatherv(MPI.IN_PLACE, [block, (self._counts, self._starts)])
