"""End the whole job when one rank fails alone."""

import atexit
import contextlib
import sys
import threading
import time
import traceback

PATIENCE_S = 3.0  # from one rank's leaving to the others'
SPEECH_S = 0.3  # for the launcher to pass the message on, before it ends the ranks


def abort(comm, error):
    """Print ``error`` with this rank's number and end the job; never returns.

    One rank that leaves alone hangs the others in their next collective, and a
    rank that raised sits in MPI_Finalize: neither launcher notices.
    """
    story = "".join(traceback.format_exception(error))
    # One write: lines of several ranks that fail at once stay together.
    sys.stderr.write(f"{story}rank {comm.rank} of {comm.size} failed: ending the job\n")
    sys.stderr.flush()
    time.sleep(SPEECH_S)
    comm.Abort(1)


@contextlib.contextmanager
def ending_the_job(comm):
    """Run what other ranks wait for: an exception of one rank cannot be told them."""
    try:
        yield
    except Exception as error:
        if comm.size > 1:
            abort(comm, error)
        raise


def install(comm):
    """End the job on any uncaught exception, in any thread of any rank.

    An exception that every rank raised together (``checks.agreed``) needs no
    Abort: rank 0 prints it and all leave by themselves, unless one has caught it
    and stays.
    """
    if comm.size == 1 or getattr(sys.excepthook, "ends_the_job", False):
        return
    previous = sys.excepthook

    def hook(kind, error, trace):
        if not getattr(error, "agreed", False) or not all_leave(comm):
            abort(comm, error.with_traceback(trace))
        elif comm.rank == 0:
            previous(kind, error, trace)

    def thread_hook(args):
        if args.exc_type is not SystemExit:  # how a thread may end itself
            abort(comm, args.exc_value)

    hook.ends_the_job = True
    sys.excepthook = hook
    threading.excepthook = thread_hook
    _watch_exits(comm)


def _watch_exits(comm):
    """End the job when one rank alone leaves by ``sys.exit`` with an error status.

    Python tells no hook of SystemExit, and the rank would wait in MPI_Finalize for
    others that wait for it. A status of 0 is left alone: a rank may have less to do.
    """
    leave, statuses = sys.exit, [None]

    def remember_and_leave(status=None, /):
        statuses[0] = status
        leave(status)

    def end():
        if statuses[0] and not all_leave(comm):
            text = f"rank {comm.rank} of {comm.size} left alone by sys.exit"
            sys.stderr.write(f"{text}({statuses[0]!r}): ending the job\n")
            sys.stderr.flush()
            time.sleep(SPEECH_S)
            comm.Abort(statuses[0] if isinstance(statuses[0], int) else 1)

    sys.exit = remember_and_leave
    atexit.register(end)  # before mpi4py finalises MPI


def all_leave(comm):
    """Return whether every rank comes here; none waits for the others for long."""
    request, end_s = comm.Ibarrier(), time.monotonic() + PATIENCE_S
    while not request.Test():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True
