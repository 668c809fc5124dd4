"""The changing ranks of one job of a pool."""

import sys
import threading
from contextlib import contextmanager

from pympi_train.comm.checks import members
from pympi_train.comm.messages import bytes_of_root
from pympi_train.pool.mail import spanned
from pympi_train.pool.meter import Meter
from pympi_train.runs.elastic.crew import Crew

LATE_S = 300.0


def group_of(comm, ranks, tag, on_late=None):
    """Return a communicator of some ``ranks`` of ``comm``; only they call this.

    Two groups with common ranks that are made at the same time need different tags.

    Parameters
    ----------
    comm : MPI.Intracomm
        Of the pool. It is not watched: a rank that waits longer than LATE_S for the
        others, of which one hangs or is gone, says so on stderr.
    ranks : list of int
    tag : int
    on_late : callable, optional
        Is then called with a sentence, in another thread.
    """
    everyone = comm.Get_group()
    group = everyone.Incl(ranks)
    late = threading.Timer(LATE_S, _tell_late, (comm.rank, list(ranks), on_late))
    late.daemon = True
    late.start()
    try:
        return comm.Create_group(group, tag)
    finally:
        late.cancel()
        group.Free()
        everyone.Free()


def _tell_late(rank, ranks, on_late):
    others = ", ".join(str(other) for other in ranks if other != rank)
    told = (
        f"rank {rank} of the pool has waited {LATE_S:g} s to train a job together with "
        f"rank {others}: one of them hangs or is gone"
    )
    sys.stderr.write(f"pympi-train: {told}\n")
    sys.stderr.flush()
    if on_late is not None:
        on_late(told)


class JobGroup(Crew):
    """The ranks of a job of a pool, which come and go as the coordinator wants.

    The ranks meet only while they change. Those that join wait in that meeting until
    they have an order, as parked ranks do; those that leave wait until the others have
    read their memory, and are then free for other jobs.

    Parameters
    ----------
    comm : MPI.Intracomm
        The ranks that meet; not guarded. This object frees it.
    n_active : int
        How many of them train already.
    stop : Stop
    make_ranks : callable
        Returns the Ranks of a communicator. Collective.
    orders : JobOrders
        What the coordinator asks of this job.
    invite : callable
        ``invite(ranks, n_active, tag)`` calls the ranks of the pool that join, on rank
        0 of the job; returns nothing. ``ranks`` are those of the job and of the pool.
    text : bytes
        The configuration, for ranks that join.

    Attributes
    ----------
    comm : MPI.Intracomm
        Of the ranks of the job, or of those that meet; not guarded.
    stop : Stop

    Notes
    -----
    Collective.
    """

    def __init__(self, comm, n_active, stop, make_ranks, orders, invite, text):
        self.requests, self._make_ranks, self._invite = orders, make_ranks, invite
        self.stop = self._stop = stop
        self._text, self._active_comm = text, None
        self._meet(comm)
        self.n_active, self.n_parked = n_active, comm.size - n_active
        self.is_active = comm.rank < n_active

    def _meet(self, comm):
        self.comm, self.everyone = comm, self._make_ranks(comm)
        self._all = frozenset(members(comm))

    def begin_requests(self, run, config, say):
        """Do nothing: requests come from the coordinator."""

    def _tell_of_signal(self):
        """Do nothing: a rank that waits for a job tells the coordinator."""

    def gather(self, n_ranks):
        """Meet with the ranks that join, or once more with those that leave."""
        orders = self.requests
        ranks, tag = self.comm.bcast((orders.ranks, orders.tag), root=0)
        if n_ranks > self.n_active:
            if self.comm.rank == 0:
                self._invite(ranks, self.n_active, tag)
            comm = orders.make_group(ranks, tag)
            bytes_of_root(comm, self._text)
        else:
            comm = self.comm.Dup()
        self.comm.Free()
        self._meet(comm)
        self.n_parked = comm.size - self.n_active

    def form(self, n_active):
        """Make the first ``n_active`` ranks active; the others are about to leave."""
        from mpi4py import MPI

        self.n_active, self.n_parked = n_active, self.comm.size - n_active
        self.is_active = self.comm.rank < n_active
        if self.n_parked:
            colour = 0 if self.is_active else MPI.UNDEFINED
            self._active_comm = self.comm.Split(colour, key=self.comm.rank)

    @contextmanager
    def active_ranks(self):
        """Yield the Ranks of the active ranks, freed at the end."""
        ranks = self.everyone
        if self.n_parked:
            ranks = self._make_ranks(self._active_comm)
        self._members, self._active = frozenset(members(ranks.comm)), ranks
        with self.telling_the_parked(), ranks:
            yield ranks

    def is_everyones(self, error):
        """Return whether all ranks that meet raised ``error`` together."""
        found = getattr(error, "raised_by", frozenset())
        return found >= self._all or len(self._all) == 1

    def settle(self):
        """End the meeting; return whether this rank has left the job."""
        if self.n_parked:
            self.everyone.free()
            self.comm.Free()
            if self.is_active:
                self.comm, self.everyone = self._active_comm, self._active
                self._all = frozenset(members(self.comm))
            self.n_parked = 0
        return not self.is_active

    def free(self):
        """Free the communicators."""
        if self.everyone:
            self.everyone.free()
        if self.comm:
            self.comm.Free()


class JobOrders:
    """What the coordinator asks of a job while it trains; takes the place of Requests.

    Parameters
    ----------
    mail : Mail
        For orders.
    job : dict
        "name" and "attempt", which tell the orders of this job from those of others.
    is_root : bool
        Whether this is rank 0 of the job.
    n_epochs : int
        Of the whole training.
    poll : callable
        Called after each step: what the pool wants done on this rank meanwhile.
    make_group : callable
        ``make_group(ranks, tag)`` returns a communicator of ranks of the pool.

    Attributes
    ----------
    wanted : int or None
        Number of ranks to go on with.
    ranks : list of int
        The ranks of the pool to meet with, in order.
    tag : int
        For the communicator of the meeting.
    """

    def __init__(self, mail, job, is_root, n_epochs, poll, make_group):
        self.job, self.make_group = job, make_group
        self._mail, self._poll = mail, poll
        self._is_root, self._n_epochs = is_root, n_epochs
        self.wanted, self.ranks, self.tag = None, [], 0
        self._signal = 0
        self._meter = None

    def is_time(self, trainer):
        """Return whether to look for orders; on rank 0 of the job."""
        self._poll()
        if self._is_root:
            self._meter = self._meter or Meter(trainer)
            told = self._meter.read()
            if told is not None:
                told["epochs"] = self._n_epochs
                self._mail.report(kind="progress", job=self.job, **told)
        return self._is_root

    def look(self):
        """Return whether the ranks are to change."""
        while True:
            order = self._mail.receive()
            if order is None:
                return self.wanted is not None
            if order.get("job") != self.job:
                continue  # for a job that has ended meanwhile
            if order["kind"] == "resize":
                self.ranks, self.tag = spanned(order["ranks"]), order["tag"]
                self.wanted = order["n_ranks"]
            elif order["kind"] == "stop":
                self._signal = order["signal"]

    def signal_of_parked(self):
        """Return the number of the signal that is to end this job, or 0."""
        self.look()
        return self._signal

    def tell(self, n_active):
        """Note that the job trains on ``n_active`` ranks."""
        self.wanted, self._meter = None, None
        if self._is_root:
            self._mail.report(kind="running", job=self.job, n_ranks=n_active)

    def close(self):
        """Do nothing."""
