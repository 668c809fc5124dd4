"""The control message that the ranks exchange between forward and backward."""

import numpy as np

from pympi_train.comm import node_sums as near
from pympi_train.comm.checks import raise_together
from pympi_train.comm.collectives import sum_in_place


class Control:
    """One float64 sum per step of [weight sum, loss sum, stop, errors].

    This is a separate message, because slots in a float32 gradient would lose counts
    above 2^24 and would not survive compression. Its 32 bytes per step cost
    microseconds. It is sent after forward: all ranks then know of an exception, a stop
    request or a non-finite loss on any rank before the first collective of backward.
    A gradient block may be summed in the same call if that saves a synchronisation.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the batch.
    """

    def __init__(self, comm):
        self._comm, self._sums = comm, np.zeros(4)
        self._is_alone = comm.size == 1

    def exchange(self, weight, loss, stop=0.0, error=None, block=None):
        """Return (weight, loss, stop) summed over the ranks.

        Parameters
        ----------
        weight, loss : float
            Sum of the sample weights and of the weighted losses of this rank's
            share of the batch.
        stop : float, default 0.0
            Non-zero if this rank requests to stop after this step.
        error : Exception, optional
            Exception on this rank since the last exchange. ``weight`` and ``loss`` are
            then ignored.
        block : ndarray, optional
            A block to be summed in the same call; it must fit, see `node_sums.fits`.

        Raises
        ------
        RemoteRankError
            If another rank passed an error. The rank that passed ``error`` raises it
            unchanged. A UserError is raised on all ranks.

        Notes
        -----
        Collective.
        """
        if self._is_alone and error is None:
            return weight, loss, stop
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
    """A control message with one slot per group; one rank fills each slot.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the batch.
    shape : tuple of int
        Shape of the slots.

    Attributes
    ----------
    slots : ndarray
        Write this rank's slots here before ``exchange``. The slots of other ranks are
        zero.
    """

    def __init__(self, comm, shape):
        self._comm = comm
        self._mine = np.zeros(int(np.prod(shape)) + 2)
        self._sums = np.zeros_like(self._mine)
        self.slots = self._mine[:-2].reshape(shape)
        self._all = self._sums[:-2].reshape(shape)

    def exchange(self, error=None, stop=False):
        """Return the slots of all ranks, and whether some rank requests to stop.

        The slots are a view that is valid until the next call. Each slot is the sum of
        one number and zeros, so it is exact in any order of summation. Raises as
        `Control.exchange`.

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
