"""What a guarded communicator and its requests add to the classes of MPI.

MPI is not loaded yet when this module is imported; `guard` makes the classes.
"""

import numpy as np

from pympi_train.comm.watch import journal as j
from pympi_train.comm.watch import survivors
from pympi_train.comm.watch.recording import record_wait


class RecordsCalls:
    """Records the waiting calls of an intracommunicator in the journal.

    Before a collective, the rank stores the number of the call on this communicator,
    and its operation. After the collective, it restores the word from before, usually
    0. This takes less than a microsecond.

    Attributes
    ----------
    row : memoryview or None
        This rank's row of the journal; None if this is not guarded.
    key : bytes or None
        See `ranks.key_of`.
    node_sums : NodeSums or None
        See `node_sums.node_sums`; False before its first call.
    family : list of MPI.Comm or None
        All communicators of the job, if it outlives ranks that die.
    """

    row = key = family = None
    node_sums = False
    debug, one_program = False, True
    _journal = _watchdog = None
    _channel = 0

    def __new__(cls, comm=None):
        return super().__new__(cls, comm)

    def _guard(self, journal, debug, channel, family, watchdog=None):
        """Start to record calls in ``journal``; return this communicator."""
        self.row, self.debug = journal.row, debug
        self._journal, self._watchdog = journal, watchdog
        self._channel, self._at = channel, j.CHANNELS + 2 * channel
        self._begun = self._pairs = 0
        journal.open_channel(channel, 1 + self._name_of(journal))
        self.family = family
        if family is not None:
            survivors.register(family, self)
        return self

    def _name_of(self, journal):
        """Return the lowest member's rank in the journal, equal on all members."""
        from mpi4py import MPI

        return self._combined(journal.rank, MPI.MIN)

    def _take_channel(self):
        """Return a channel that is unused on all members, or None. Collective."""
        from mpi4py import MPI

        used = self._combined(self._journal.used, MPI.BOR)
        unused = (i for i in range(j.N_CHANNELS) if not used >> i & 1)
        return next(unused, None)

    def _combined(self, number, op):
        from mpi4py import MPI

        found = np.array([number], np.int64)
        MPI.Intracomm.Allreduce(self, MPI.IN_PLACE, found, op=op)
        return int(found[0])

    def _guard_child(self, make, *args, **kwargs):
        """Return the communicator ``make(self, ...)``, guarded if a channel is free."""
        from mpi4py import MPI

        channel = self._take_channel()
        child = make(self, *args, **kwargs)
        if child == MPI.COMM_NULL or child.size == 1:
            return child
        if channel is None:
            if self.family is not None:
                survivors.register(self.family, child)
            return child
        made_of = self._journal, self.debug, channel, self.family
        return type(self)(child)._guard(*made_of)

    def Free(self):
        """Free the communicator, and the journal if it was made for it."""
        if self.row is not None and not self._channel:
            self.Barrier()  # wait here, where the watchdog still sees the wait
        if self.node_sums:
            self.node_sums.free()
        self.node_sums = None
        if self.family is not None:
            self.family[:] = [comm for comm in self.family if comm is not self]
        super().Free()
        journal, self.row = self._journal, None
        if journal is None:
            return
        if self._channel:
            journal.close_channel(self._channel)
            return
        self._watchdog.stop()
        journal.free()


class RecordsWait:
    """Records in the journal when a rank waits for a request.

    Attributes
    ----------
    comm : MPI.Intracomm or None
        Guarded.
    """

    comm = None

    def __new__(cls, request=None):
        return super().__new__(cls, request)

    def Wait(self, status=None):
        """Wait, as MPI.Request.Wait."""
        if self.comm is None:
            return super().Wait(status)
        return record_wait(self.comm, "Wait", super().Wait, status)
