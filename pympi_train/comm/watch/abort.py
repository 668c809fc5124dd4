"""End the whole program when one rank fails alone."""

import atexit
import os
import sys
import threading
import time
import traceback

from pympi_train.comm.watch import journal

PATIENCE_S = 3.0  # from one rank's leaving to the others', and to the launcher's act
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
    end(comm, 1)


def end(comm, status):
    """End the job, with this exit status where the launcher hands it on.

    MPI_Abort of MPICH 5 may come back once the launcher is told, before that has ended
    the ranks: a failed thread's program went on to its next Barrier, and through it.
    """
    comm.Abort(status)
    time.sleep(PATIENCE_S)
    os._exit(status)


def install():
    """End the program on any uncaught exception, in any thread of any rank.

    An exception that all ranks raised together (``checks.agreed_within``) needs no
    Abort: rank 0 prints it and all leave by themselves, unless one has caught it and
    stays. One that all ranks of a part of the program raised is printed by the first
    of them.

    A rank that leaves without an exception, by the end of its program, ``sys.exit`` or
    SystemExit, writes so into the journals of its jobs. Who waits for it then in one of
    their calls, or will, is told so by the watchdog and ends the program.
    """
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    if world.size == 1 or getattr(sys.excepthook, "ends_the_job", False):
        return
    previous = sys.excepthook

    def hook(kind, error, trace):
        ranks = getattr(error, "raised_by", ()) or {world.rank}
        if len(ranks) == world.size and all_leave(world):
            if world.rank == 0:
                previous(kind, error, trace)
            return
        if world.rank != min(ranks):
            time.sleep(PATIENCE_S)  # the first of them ends the program
        abort(world, error.with_traceback(trace))

    def thread_hook(args):
        if args.exc_type is not SystemExit:  # how a thread may end itself
            abort(world, args.exc_value)

    hook.ends_the_job = True
    sys.excepthook = hook
    threading.excepthook = thread_hook
    atexit.register(journal.note_leaving)  # before mpi4py finalises MPI


def all_leave(comm):
    """Return whether every rank comes here; none waits for the others for long."""
    request, end_s = comm.Ibarrier(), time.monotonic() + PATIENCE_S
    while not request.Test():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True
