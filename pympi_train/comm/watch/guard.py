"""Communicators that record their calls for the watchdog, and compare them in debug."""

import functools
import math

import numpy as np

from pympi_train.comm.checks import agreed_within
from pympi_train.comm.watch import journal as j
from pympi_train.comm.watch import sites, survivors
from pympi_train.comm.watch.watchdog import Watchdog, end_late
from pympi_train.errors import RankMismatchError

# All ranks of the communicator call these, in the same order.
COLLECTIVES = (
    "Allreduce Bcast Allgather Allgatherv Alltoall Alltoallv Alltoallw Reduce "
    "Reduce_scatter Reduce_scatter_block Gather Gatherv Scatter Scatterv Scan Exscan "
    "Barrier allreduce bcast allgather alltoall reduce gather scatter scan exscan "
    "barrier"
).split()
# Collectives that return a request.
STARTED = (
    "Iallreduce Ibcast Iallgather Iallgatherv Ialltoall Ialltoallv Ireduce "
    "Ireduce_scatter Ireduce_scatter_block Igather Igatherv Iscatter Iscatterv Ibarrier"
).split()
# Recorded but without a timeout: a server waits here for the next request.
PAIRWISE = (
    "Send Ssend Recv Sendrecv Sendrecv_replace Probe Mprobe "
    "send ssend recv sendrecv probe mprobe"
).split()
SPLITS = ["Dup", "Split", "Split_type"]  # their results are guarded too

OPERATIONS = ("", *COLLECTIVES, *STARTED, *SPLITS, "Wait", "Waitall", *PAIRWISE)
WATCHED = j.Operations(
    OPERATIONS,
    n_collectives=OPERATIONS.index("Wait"),
    n_timed=OPERATIONS.index(PAIRWISE[0]),
)


def guarded(comm, timeout_s, debug=False, outlives=False, on_hang=None):
    """Return a guarded communicator that replaces ``comm``.

    Parameters
    ----------
    comm : MPI.Intracomm
        Its handle is shared: ``Free`` of the result frees ``comm``, and stops the
        watchdog.
    timeout_s : float
        A rank that waits for this time in one call ends the program. 0: no timeout. A
        rank that waits for an ended rank always ends the program.
    debug : bool
        Compare each collective, and the place that calls it, before the call.
    outlives : bool
        After an error of MPI on one rank, the calls of all ranks raise; see
        `survivors.outlive`.
    on_hang : callable, optional
        See `Ranks`.

    Returns
    -------
    MPI.Intracomm
        ``comm`` itself if it has one rank or is guarded already.

    Notes
    -----
    Collective; ``Free`` of the result is too.
    """
    is_guarded = getattr(comm, "row", None) is not None
    if comm.size == 1 or is_guarded:
        return comm
    journal = j.Journal(comm)
    journal.may_be_given_up = on_hang is not None
    end = end_late if outlives else on_hang
    watchdog = Watchdog(journal, WATCHED, timeout_s or math.inf, end)
    watchdog.start()
    family = [] if outlives else None
    return _kind()(comm)._guard(journal, debug, 0, family, watchdog)


def abandon(comm):
    """Stop the watchdog of a communicator whose ranks no longer meet. Not collective.

    ``comm`` need not be guarded. Its memory stays until the process ends. Ranks that
    still wait in a call of the job raise.
    """
    if getattr(comm, "row", None) is not None:
        survivors.revoke(comm.family or ())
        comm._watchdog.stop()
        j.forget(comm._journal)


def may_be_given_up(comm):
    """Return whether the program goes on if a rank of ``comm`` fails alone."""
    return getattr(getattr(comm, "_journal", None), "may_be_given_up", False)


def compare_places(comm, compare):
    """Set whether the places of calls are compared in debug mode.

    Switch it off while ranks run different code. ``comm`` need not be guarded.
    """
    if getattr(comm, "row", None) is not None:
        comm.one_program = compare


def marker(comm):
    """Return ``mark(place, step)``, which records this rank's place in tens of ns.

    ``place`` is one of the constants of ``journal``. ``comm`` need not be guarded.
    """
    row = getattr(comm, "row", None)
    if row is None:
        return lambda place, step=0: None
    at = j.PLACE

    def mark(place, step=0):
        row[at] = step << 8 | place

    return mark


def wait_all(comm, requests):
    """Wait for ``requests`` of ``comm``, guarded or not, as MPI.Request.Waitall."""
    from mpi4py import MPI

    if getattr(comm, "row", None) is None:
        MPI.Request.Waitall(requests)
    else:
        _call(comm, "Waitall", MPI.Request.Waitall, requests)


def collective(name):
    """Return a decorator that records calls of ``function(comm, ...)`` as ``name``.

    The watchdog then sees a rank wait in the function, and its calls are compared in
    debug mode. ``comm`` must be guarded.
    """
    return lambda function: functools.wraps(function)(_watched(function, name))


def note_wait(comm, wait):
    """Call ``wait()``, recorded as a wait for ranks of ``comm``, guarded or not."""
    if getattr(comm, "row", None) is None:
        wait()
    else:
        _call(comm, "Wait", wait)


@functools.cache  # MPI is not loaded yet when this module is imported
def _kind():
    """Return the class of guarded communicators."""
    from mpi4py import MPI

    class Guarded(MPI.Intracomm):
        """An intracommunicator that records its waiting calls in the journal.

        Before a collective, the rank stores the number of the call on this
        communicator, and its operation. After the collective, it restores the word from
        before, usually 0. This takes less than a microsecond.

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
            return self._combined(journal.rank, MPI.MIN)

        def _take_channel(self):
            """Return a channel that is unused on all members, or None. Collective."""
            used = self._combined(self._journal.used, MPI.BOR)
            unused = (i for i in range(j.N_CHANNELS) if not used >> i & 1)
            return next(unused, None)

        def _combined(self, number, op):
            found = np.array([number], np.int64)
            super().Allreduce(MPI.IN_PLACE, found, op=op)
            return int(found[0])

        def _guard_child(self, make, *args, **kwargs):
            if self.row is None:
                return make(self, *args, **kwargs)
            channel = self._take_channel()
            child = make(self, *args, **kwargs)
            if child == MPI.COMM_NULL or child.size == 1:
                return child
            if channel is None:
                if self.family is not None:
                    survivors.register(self.family, child)
                return child
            made_of = self._journal, self.debug, channel, self.family
            return Guarded(child)._guard(*made_of)

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

    class Request(MPI.Request):
        """A request that records when a rank waits for it."""

        comm = None

        def __new__(cls, request=None):
            return super().__new__(cls, request)

        def Wait(self, status=None):
            """Wait, as MPI.Request.Wait."""
            if self.comm is None:
                return super().Wait(status)
            return _call(self.comm, "Wait", super().Wait, status)

    def watched(request, comm):
        request = Request(request)
        request.comm = comm
        return request

    for name in COLLECTIVES:
        setattr(Guarded, name, _collective(MPI.Intracomm, name))
    for name in ("allreduce", "reduce"):
        method = _reduction(MPI.Intracomm, name)
        setattr(Guarded, name, _named(_watched(method, name), name, method))
    for name in STARTED:
        setattr(Guarded, name, _started(MPI.Intracomm, name, watched))
    for name in PAIRWISE:
        setattr(Guarded, name, _pairwise(MPI.Intracomm, name))
    for name in SPLITS:
        setattr(Guarded, name, _split(MPI.Intracomm, name))
    return Guarded


def _call(comm, name, function, *args, **kwargs):
    """Call ``function``, recorded as a wait that does not count as a collective."""
    row, operation = comm.row, OPERATIONS.index(name)
    comm._pairs += 1
    around = row[j.WAITING]  # waits may be nested
    row[j.WAITING] = j.waiting(comm._pairs, operation, comm._channel)
    try:
        found = function(*args, **kwargs)
        if comm.family is not None:
            survivors.require_alive(comm)
        return found
    except Exception as error:
        _revoke(error, comm)
        raise
    finally:
        row[j.WAITING] = around


def _revoke(error, comm):
    """Let the other ranks' calls raise too, if this job outlives ranks that die."""
    if survivors.is_survived(comm, error):
        survivors.revoke(comm.family)
    elif comm.family is not None and not survivors.is_alive(comm):
        survivors.revoke(comm.family)
        survivors.require_alive(comm)  # the error may be of what only half arrived


def _named(method, name, of):
    method.__name__, method.__qualname__ = name, f"Guarded.{name}"
    method.__doc__ = f"As MPI.Intracomm's, and noted in the journal.\n\n{of.__doc__}"
    return method


def _collective(base, name):
    plain = getattr(base, name)
    return _named(_watched(plain, name), name, plain)


def _reduction(base, name):
    """Return mpi4py's reduction of objects, in a form that can be revoked.

    mpi4py makes a communicator of its own for it.
    """
    from mpi4py import MPI

    plain = getattr(base, name)

    def method(self, sendobj, op=MPI.SUM, **root):
        if self.family is None:
            return plain(self, sendobj, op, **root)
        found = functools.reduce(op, base.allgather(self, sendobj))
        return found if root.get("root", self.rank) == self.rank else None

    method.__doc__ = plain.__doc__
    return method


def _watched(plain, name):
    """Return the method ``plain`` of a communicator, recorded as a collective."""
    code, at_waiting = OPERATIONS.index(name), j.WAITING

    def method(self, *args, **kwargs):
        row = self.row
        if row is None:
            return plain(self, *args, **kwargs)
        if self.debug:
            _agree(self, name, args, kwargs)
        # Inlined journal.waiting: a function call costs as much as the stores.
        self._begun = row[self._at] = number = self._begun + 1
        around, row[at_waiting] = (
            row[at_waiting],
            number << 16 | code << 8 | self._channel,
        )
        try:
            found = plain(self, *args, **kwargs)
            if self.family is not None:
                survivors.require_alive(self)
            return found
        except Exception as error:
            _revoke(error, self)
            raise
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
    """Raise on every rank unless all ranks are about to make the same call. Collective.

    Raises
    ------
    RankMismatchError
        Names the first rank that differs from rank 0, and both calls.
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
