"""The ranks of a job that train, and those that wait until they are called."""

import shlex
import time
from contextlib import contextmanager

import numpy as np

from pympi_train.comm.checks import members, raise_together
from pympi_train.comm.ranks import Ranks
from pympi_train.comm.watch import journal
from pympi_train.comm.watch.guard import marker, note_wait
from pympi_train.runs.elastic.requests import Bounds, Requests
from pympi_train.runs.speech import counted

TAG = 20_712  # of the messages to rank 0, on a communicator that others use too
LONGEST_S, BRIEF_S = 0.05, 0.001  # between two looks for an order
RESIZE, READY, END, FAIL = 1, 2, 3, 4  # orders


class Crew:
    """The active and the parked ranks of a job.

    The first ranks are active: they train. The others are parked: they sleep, and look
    for an order of rank 0 some twenty times a second. The watchdog does not count this
    as waiting.

    Parameters
    ----------
    everyone : Ranks
        Those of the job. Must not be freed before this object.
    n_active : int
        How many ranks are active at first.
    stop : Stop
        What signals have asked this rank for.

    Attributes
    ----------
    everyone : Ranks
    n_active, n_parked : int
    is_active : bool
    requests : Requests or None
        On rank 0, once the run directory is made: what users ask for.

    Notes
    -----
    Collective; so are `form` and `free`.
    """

    requests = None

    def __init__(self, everyone, n_active, stop):
        self.everyone, self._stop = everyone, stop
        self._told, self._n_heard = [], 0  # messages on signals, and their buffers
        self._comm = None
        self.form(n_active)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is None or self.is_everyones(error):
            self.free()

    def is_everyones(self, error):
        """Return whether all ranks of the job raised ``error`` together."""
        found = getattr(error, "raised_by", frozenset())
        return found >= frozenset(members(self.everyone.comm))

    def form(self, n_active):
        """Make the first ``n_active`` ranks active, and park the others."""
        from mpi4py import MPI

        comm = self.everyone.comm
        self.n_active, self.n_parked = n_active, comm.size - n_active
        self.is_active, self._comm = comm.rank < n_active, None
        if self.n_parked:
            colour = 0 if self.is_active else MPI.UNDEFINED
            self._comm = comm.Split(colour, key=comm.rank)

    def begin_requests(self, run, config, say):
        """Begin to take requests for other ranks, on the rank that has ``run``.

        Parameters
        ----------
        run : RunDirectory or None
        config : Config
        say : callable
            Prints a line.
        """
        if run is None:
            return
        bounds = Bounds.of(config, self.everyone.size)
        self.requests = Requests(run.path, bounds, say, self.signal_of_parked)
        if self.n_parked:
            how = f"`pympi-train resize {shlex.quote(str(run.path))} RANKS`"
            say(f"parked   {counted(self.n_parked, 'rank')}: {how} calls them")

    def gather(self, n_ranks):
        """Call the ranks that ``n_ranks`` ranks need; here they are parked already."""

    def settle(self):
        """After a change: return whether this rank has left; here none does."""
        return False

    @contextmanager
    def active_ranks(self):
        """Yield the Ranks of the active ranks; only they call this.

        An error that they raise together in the body, the parked ranks raise too.
        """
        with self.telling_the_parked():
            if self._comm is None:
                self._members = frozenset(members(self.everyone.comm))
                yield self.everyone
            else:
                self._members = frozenset(members(self._comm))
                how = self.everyone.timeout_s, self.everyone.debug
                try:
                    ranks = Ranks(self._comm, timeout_s=how[0], debug=how[1])
                finally:
                    self._comm.Free()
                # Parked ranks of this node use no CPU.
                ranks.n_on_node = min(ranks.n_on_node, ranks.size)
                with ranks:
                    yield ranks

    @contextmanager
    def telling_the_parked(self):
        """Let the parked ranks raise what the active ones raise together in the body.
        """
        try:
            yield
        except Exception as error:
            if self.n_parked and self._is_of_the_active(error):
                self._fail(error)
            raise

    def _is_of_the_active(self, error):
        """Return whether all active ranks raised the error, and not all of the job."""
        found = getattr(error, "raised_by", frozenset())
        is_agreed = found >= self._members or self.n_active == 1
        return is_agreed and not self.is_everyones(error)

    def _fail(self, error):
        """Let the parked ranks raise the error of the active ones."""
        self.order(FAIL)
        try:
            self.raise_together(error)
        except Exception as told:
            error.raised_by = told.raised_by

    # Active and parked ranks call these two from different places. In debug mode ranks
    # compare the function that calls a collective: it is the same within these.

    def raise_together(self, error=None):
        """Raise the active ranks' ``error`` on all ranks of the job. Collective."""
        raise_together(self.everyone.comm, error)

    def result_of_all(self, result=None):
        """Return rank 0's ``result`` on all ranks of the job. Collective."""
        return self.everyone.comm.bcast(result, root=0)

    def order(self, what, number=0):
        """Send an order to the parked ranks; all active ranks call this together.

        Parameters
        ----------
        what : int
            RESIZE, with the new number of active ranks; READY: the state was read;
            END or FAIL: a result or an error follows. Rank 0's counts.
        """
        block = np.array([what, number], np.int64)
        note_wait(self.everyone.comm, self._broadcast(block).Wait)

    def next_order(self, is_read=False):
        """Wait for an order; return it and its number. Only parked ranks call this.

        Parameters
        ----------
        is_read : bool
            Whether other ranks read this rank's memory meanwhile.
        """
        mark = marker(self.everyone.comm)
        mark(journal.PARKED)
        block, pause_s = np.zeros(2, np.int64), BRIEF_S
        request = self._broadcast(block)
        with self._stop.during(lambda: None):
            while not request.Test():
                self._tell_of_signal()
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, BRIEF_S if is_read else LONGEST_S)
        mark(journal.SET_UP)
        return tuple(block.tolist())

    def _broadcast(self, block):
        """Start the broadcast of an order.

        Not by a guarded call: in debug mode that would wait for the parked ranks.
        """
        from mpi4py import MPI

        return MPI.Intracomm.Ibcast(self.everyone.comm, block, root=0)

    def _tell_of_signal(self):
        """Tell rank 0 once of a signal that only this rank may have received."""
        if self._stop.signal and not self._told:
            block = np.array([self._stop.signal], np.int64)
            self._told.append((block, self.everyone.comm.Isend(block, 0, TAG)))

    def signal_of_parked(self):
        """Return the number of a signal to a parked rank, or 0; on rank 0."""
        from mpi4py import MPI

        comm = self.everyone.comm
        if not self.n_parked or not comm.Iprobe(MPI.ANY_SOURCE, TAG):
            return 0
        return self._hear()

    def _hear(self):
        from mpi4py import MPI

        block = np.zeros(1, np.int64)
        self.everyone.comm.Recv(block, MPI.ANY_SOURCE, TAG)
        self._n_heard += 1
        return int(block[0])

    def free(self):
        """Receive what is still under way."""
        comm = self.everyone.comm
        if comm.size == 1:
            return
        n_told = comm.reduce(len(self._told), root=0)
        if comm.rank == 0:
            while self._n_heard < n_told:
                self._hear()
        for _, request in self._told:
            request.Wait()
        self._told.clear()
