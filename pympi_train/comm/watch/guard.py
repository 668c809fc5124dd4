"""Communicators that record their calls for the watchdog, and compare them in debug."""

import functools
import math

from pympi_train.comm.watch import journal as j
from pympi_train.comm.watch import survivors
from pympi_train.comm.watch.communicator import RecordsCalls, RecordsWait
from pympi_train.comm.watch.operations import WATCHED
from pympi_train.comm.watch.recording import make_methods, record_wait, recorded
from pympi_train.comm.watch.watchdog import Watchdog, end_late


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
    _wait(comm, "Waitall", requests)


def wait_some(comm, requests):
    """Wait for one of ``requests`` or more; return which, as MPI.Request.Waitsome."""
    return _wait(comm, "Waitsome", requests)


def _wait(comm, name, requests):
    from mpi4py import MPI

    wait = getattr(MPI.Request, name)
    if getattr(comm, "row", None) is None:
        return wait(requests)
    return record_wait(comm, name, wait, requests)


def collective(name):
    """Return a decorator that records calls of ``function(comm, ...)`` as ``name``.

    The watchdog then sees a rank wait in the function, and its calls are compared in
    debug mode. ``comm`` must be guarded.
    """
    return lambda function: functools.wraps(function)(recorded(function, name))


def unrecorded(comm, name):
    """Return the method ``name`` of ``comm`` without the guard's record.

    For the messages of a function that is recorded as one `collective`.
    """
    if getattr(comm, "row", None) is None:
        return getattr(comm, name)
    from mpi4py import MPI

    return functools.partial(getattr(MPI.Intracomm, name), comm)


def note_wait(comm, wait):
    """Call ``wait()``, recorded as a wait for ranks of ``comm``, guarded or not."""
    if getattr(comm, "row", None) is None:
        wait()
    else:
        record_wait(comm, "Wait", wait)


@functools.cache  # MPI is not loaded yet when this module is imported
def _kind():
    """Return the class of guarded communicators."""
    from mpi4py import MPI

    class Request(RecordsWait, MPI.Request):
        """A request that records when a rank waits for it."""

    class Guarded(RecordsCalls, MPI.Intracomm):
        """An intracommunicator that records its waiting calls in the journal."""

    for name, method in make_methods(MPI.Intracomm, Request).items():
        setattr(Guarded, name, method)
    return Guarded
