"""The small message between forward and backward."""

import numpy as np

from pympi_train.comm import node_sums as near
from pympi_train.comm.checks import raise_together
from pympi_train.comm.collectives import sum_in_place


class Control:
    """One float64 SUM a step of [weight sum, loss sum, stop, errors].

    It is a message of its own: slots in a float32 gradient would lose counts
    above 2^24 and break under compression; 32 bytes more or less a step cost
    microseconds. It goes out after forward, so that any rank's exception, wish
    to stop or non-finite loss is known to all before backward's first collective.
    Where a rank waits for the others but once for both, a gradient may come with it.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the batch.
    """

    def __init__(self, comm):
        self._comm, self._sums = comm, np.zeros(4)

    def exchange(self, weight, loss, stop=0.0, error=None, block=None):
        """Return (weight, loss, stop) summed over the ranks.

        Parameters
        ----------
        weight, loss : float
            Sum of the sample weights and of the weighted losses of this rank's
            share of the batch.
        stop : float, default 0.0
            Non-zero where this rank wants to end after this step.
        error : Exception, optional
            What went wrong on this rank since the last exchange; ``weight`` and
            ``loss`` do not count then.
        block : ndarray, optional
            Is summed too: one that `node_sums.fits`.

        Raises
        ------
        RemoteRankError
            If another rank brought an error; ``error`` itself on the rank it
            belongs to; a UserError on all ranks alike.

        Notes
        -----
        Collective.
        """
        sums = self._sums
        sums[:] = (weight, loss, stop, 0.0) if error is None else (0.0, 0.0, 0.0, 1.0)
        if block is None:
            sum_in_place(self._comm, sums)
        else:
            near.reduce(self._comm, sums, block)
        weight, loss, stop, errors = sums.tolist()
        if errors:
            raise_together(self._comm, error)
        return weight, loss, stop


class SlotControl:
    """The same message with a slot for each group, each filled by one rank.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the batch.
    shape : tuple of int
        Of the slots.

    Attributes
    ----------
    slots : ndarray
        Zero where another rank's are; to be written before ``exchange``.
    """

    def __init__(self, comm, shape):
        self._comm = comm
        self._mine = np.zeros(int(np.prod(shape)) + 2)
        self._sums = np.zeros_like(self._mine)
        self.slots = self._mine[:-2].reshape(shape)
        self._all = self._sums[:-2].reshape(shape)

    def exchange(self, error=None, stop=False):
        """Return the slots of all ranks, and whether some rank wants to stop.

        The slots are a view that is valid until the next call. Each is a number plus
        zeros, so it is exact in any order of summation. Raises as `Control.exchange`.

        Notes
        -----
        Collective.
        """
        self._mine[-2:] = stop, error is not None
        self._sums[:] = self._mine
        sum_in_place(self._comm, self._sums)
        if self._sums[-1]:
            raise_together(self._comm, error)
        return self._all, self._sums[-2] > 0
