"""Communicators whose calls leave a trace for the watchdog, and agree if asked to."""

import functools
import math

from pympi_train.comm.checks import agreed_within
from pympi_train.comm.watch import journal as j
from pympi_train.comm.watch import sites
from pympi_train.comm.watch.watchdog import Watchdog
from pympi_train.errors import RankMismatchError

# All ranks of the communicator call these, in the same order.
COLLECTIVES = (
    "Allreduce Bcast Allgather Allgatherv Alltoall Alltoallv Alltoallw Reduce "
    "Reduce_scatter Reduce_scatter_block Gather Gatherv Scatter Scatterv Scan Exscan "
    "Barrier allreduce bcast allgather alltoall reduce gather scatter scan exscan "
    "barrier"
).split()
# As they, but a request is what they return.
STARTED = (
    "Iallreduce Ibcast Iallgather Iallgatherv Ialltoall Ialltoallv Ireduce "
    "Ireduce_scatter Ireduce_scatter_block Igather Igatherv Iscatter Iscatterv Ibarrier"
).split()
# Noted, but for any time: a server waits here for whoever needs it next.
PAIRWISE = (
    "Send Ssend Recv Sendrecv Sendrecv_replace Probe Mprobe "
    "send ssend recv sendrecv probe mprobe"
).split()
SPLITS = ["Dup", "Split", "Split_type"]  # communicators that are guarded too

OPERATIONS = ("", *COLLECTIVES, *STARTED, *SPLITS, "Wait", "Waitall", *PAIRWISE)
WATCHED = j.Operations(
    OPERATIONS,
    n_collectives=OPERATIONS.index("Wait"),
    n_timed=OPERATIONS.index(PAIRWISE[0]),
)


def guarded(comm, timeout_s, debug=False):
    """Return a guarded communicator in place of ``comm``, which it takes over.

    Parameters
    ----------
    comm : MPI.Intracomm
        Its handle is shared: ``Free`` of the result frees it, and stops the watchdog.
    timeout_s : float
        A rank that waits so long in one call ends the program; 0: none does. One that
        waits for a rank that has left always does.
    debug : bool
        Agree on each collective first, and on the place in the program that calls it.

    Returns
    -------
    MPI.Intracomm
        ``comm`` itself if it is one rank, or guarded already.

    Notes
    -----
    Collective, and so is its ``Free``. A rank that stays away leaves the others
    waiting.
    """
    is_guarded = getattr(comm, "row", None) is not None
    if comm.size == 1 or is_guarded:
        return comm
    journal = j.Journal(comm)
    watchdog = Watchdog(journal, WATCHED, timeout_s or math.inf)
    watchdog.start()
    return _kind()(comm)._guard(journal, debug, 0, watchdog)


def compare_places(comm, compare):
    """Say whether ranks that debug compare the places that they call from.

    They do, unless kinds of ranks run different code; ``comm`` need not be guarded.
    """
    if getattr(comm, "row", None) is not None:
        comm.one_program = compare


def marker(comm):
    """Return ``mark(place, step)``, which notes where this rank is; tens of ns.

    ``place`` is one of ``journal``'s; ``comm`` need not be guarded.
    """
    row = getattr(comm, "row", None)
    if row is None:
        return lambda place, step=0: None
    at = j.PLACE

    def mark(place, step=0):
        row[at] = step << 8 | place

    return mark


def wait_all(comm, requests):
    """Wait for ``requests`` of ``comm``, guarded or not: as MPI.Request.Waitall.

    Notes
    -----
    A rank that stays away leaves the others waiting, as the requests' calls say.
    """
    from mpi4py import MPI

    if getattr(comm, "row", None) is None:
        MPI.Request.Waitall(requests)
    else:
        _call(comm, "Waitall", MPI.Request.Waitall, requests)


def collective(name):
    """Decorate ``function(comm, ...)``, a collective of guarded ones like ``name``.

    So the watchdog sees a rank wait in it, and ranks that debug compare its calls.
    """
    return lambda function: functools.wraps(function)(_watched(function, name))


def note_wait(comm, wait):
    """Call ``wait()``, noted as a wait for ranks of ``comm``, guarded or not."""
    if getattr(comm, "row", None) is None:
        wait()
    else:
        _call(comm, "Wait", wait)


@functools.cache  # MPI is not there yet when this module is imported
def _kind():
    """The class of guarded communicators."""
    from mpi4py import MPI

    class Guarded(MPI.Intracomm):
        """An intracommunicator that writes into the journal what it waits in.

        Before a collective the rank stores the number that the call has on this
        communicator, and what it is; after it, what it was in before, as a rule none.
        That takes less than a microsecond.

        Attributes
        ----------
        row : memoryview or None
            This rank's row of the journal; None where this is not guarded.
        key : bytes or None
            See `ranks.key_of`.
        node_sums : NodeSums or None
            See `node_sums.node_sums`; False before anybody has asked for them.
        """

        row = key = None
        node_sums = False
        debug, one_program = False, True
        _journal = _watchdog = None
        _channel = 0

        def __new__(cls, comm=None):
            return super().__new__(cls, comm)

        def _guard(self, journal, debug, channel, watchdog=None):
            """Begin to write into ``journal``."""
            self.row, self.debug = journal.row, debug
            self._journal, self._watchdog = journal, watchdog
            self._channel, self._at = channel, j.CHANNELS + 2 * channel
            self._begun = self._pairs = 0
            journal.open_channel(channel, 1 + self._name_of(journal))
            return self

        def _name_of(self, journal):
            """The first member's rank in the journal: the same on all members."""
            return super().allreduce(journal.rank, op=MPI.MIN)

        def _take_channel(self):
            """Return a channel that is free on all members, or None. Collective."""
            used = super().allreduce(self._journal.used, op=MPI.BOR)
            unused = (i for i in range(j.N_CHANNELS) if not used >> i & 1)
            return next(unused, None)

        def _guard_child(self, make, *args, **kwargs):
            if self.row is None:
                return make(self, *args, **kwargs)
            channel = self._take_channel()
            child = make(self, *args, **kwargs)
            if channel is None or child == MPI.COMM_NULL or child.size == 1:
                return child
            return Guarded(child)._guard(self._journal, self.debug, channel)

        def Free(self):
            """Free the communicator, and the journal if it was made for this one."""
            if self.row is not None and not self._channel:
                self.Barrier()  # the last call that is watched; others may wait later
            if self.node_sums:
                self.node_sums.free()
            self.node_sums = None
            super().Free()
            journal, self.row = self._journal, None
            if journal is None:
                return
            if self._channel:
                journal.close_channel(self._channel)
                return
            self._watchdog.stop()
            journal.free()

    class Request(MPI.Request):
        """A request that says so when a rank waits for it."""

        comm = None

        def __new__(cls, request=None):
            return super().__new__(cls, request)

        def Wait(self, status=None):
            """As MPI.Request's."""
            if self.comm is None:
                return super().Wait(status)
            return _call(self.comm, "Wait", super().Wait, status)

    def watched(request, comm):
        request = Request(request)
        request.comm = comm
        return request

    for name in COLLECTIVES:
        setattr(Guarded, name, _collective(MPI.Intracomm, name))
    for name in STARTED:
        setattr(Guarded, name, _started(MPI.Intracomm, name, watched))
    for name in PAIRWISE:
        setattr(Guarded, name, _pairwise(MPI.Intracomm, name))
    for name in SPLITS:
        setattr(Guarded, name, _split(MPI.Intracomm, name))
    return Guarded


def _call(comm, name, function, *args, **kwargs):
    """Call ``function``, noted as a wait that is no collective of its own."""
    row, operation = comm.row, OPERATIONS.index(name)
    comm._pairs += 1
    around = row[j.WAITING]  # what ``function`` waits in may be noted too
    row[j.WAITING] = j.waiting(comm._pairs, operation, comm._channel)
    try:
        return function(*args, **kwargs)
    finally:
        row[j.WAITING] = around


def _named(method, name, of):
    method.__name__, method.__qualname__ = name, f"Guarded.{name}"
    method.__doc__ = f"As MPI.Intracomm's, and noted in the journal.\n\n{of.__doc__}"
    return method


def _collective(base, name):
    plain = getattr(base, name)
    return _named(_watched(plain, name), name, plain)


def _watched(plain, name):
    """Return the method ``plain`` of a communicator, noted as a collective."""
    code, at_waiting = OPERATIONS.index(name), j.WAITING

    def method(self, *args, **kwargs):
        row = self.row
        if row is None:
            return plain(self, *args, **kwargs)
        if self.debug:
            _agree(self, name, args, kwargs)
        # In place of journal.waiting: a call costs as much as the stores.
        self._begun = row[self._at] = number = self._begun + 1
        around, row[at_waiting] = (
            row[at_waiting],
            number << 16 | code << 8 | self._channel,
        )
        try:
            return plain(self, *args, **kwargs)
        finally:
            row[at_waiting] = around

    return method


def _started(base, name, watched):
    plain = getattr(base, name)

    def method(self, *args, **kwargs):
        row = self.row
        if row is None:
            return plain(self, *args, **kwargs)
        if self.debug:
            _agree(self, name, args, kwargs)
        self._begun = row[self._at] = self._begun + 1
        return watched(plain(self, *args, **kwargs), self)

    return _named(method, name, plain)


def _pairwise(base, name):
    plain = getattr(base, name)

    def method(self, *args, **kwargs):
        if self.row is None:
            return plain(self, *args, **kwargs)
        return _call(self, name, plain, self, *args, **kwargs)

    return _named(method, name, plain)


def _split(base, name):
    plain = getattr(base, name)

    def method(self, *args, **kwargs):
        if self.row is None:
            return plain(self, *args, **kwargs)
        if self.debug:
            _agree(self, name, (), {})
        self._begun = self.row[self._at] = self._begun + 1
        return _call(self, name, self._guard_child, plain, *args, **kwargs)

    return _named(method, name, plain)


def _agree(comm, name, args, kwargs):
    """Raise on every rank unless all are about to make the same call. Collective.

    Raises
    ------
    RankMismatchError
        Naming the first rank that differs from rank 0, and both calls.
    """
    from mpi4py import MPI

    where = sites.call_site()
    mine = (comm._begun + 1, name, *sites.shape_of_call(name, args, kwargs), where)
    all_calls = MPI.Intracomm.allgather(comm, mine)
    first, same = all_calls[0], sites.same if comm.one_program else sites.same_call
    odd = [rank for rank, call in enumerate(all_calls) if not same(call, first)]
    if odd:
        raise agreed_within(
            comm,
            RankMismatchError(
                f"ranks part ways at collective {comm._begun + 1} of their "
                f"communicator: rank 0 calls {sites.told(first)}, but rank "
                f"{odd[0]} {sites.told(all_calls[odd[0]])} ({len(odd)} of {comm.size} "
                f"ranks differ from rank 0). Every rank has to make the same calls in "
                f"the same order"
            ),
        )
