"""End the whole program when one rank fails alone."""

import atexit
import os
import sys
import threading
import time
import traceback
from contextlib import suppress

from pympi_train.comm.watch import journal

PATIENCE_S = 3.0  # maximum wait for the other ranks to end, and for the launcher
SPEECH_S = 1.0  # time for the launcher to forward a message before it ends the ranks


def abort(comm, error):
    """Print ``error`` with this rank's number and end the job; never returns.

    If one rank ended alone, the other ranks would hang in their next collective, and
    the failed rank would wait in MPI_Finalize. Neither launcher detects this.
    """
    story = "".join(traceback.format_exception(error))
    # One write keeps the lines of a rank together if several ranks fail at once.
    sys.stderr.write(f"{story}rank {comm.rank} of {comm.size} failed: ending the job\n")
    sys.stderr.flush()
    end(1)


def end(status):
    """End the program, with exit status ``status`` if the launcher forwards it.

    Of all ranks of MPI_COMM_WORLD: for a communicator made from it, MPI_Abort of MPICH
    sends each of its ranks a message (pmodels/mpich#6634), and in 5.0.2 does not return
    while ranks of other nodes hang.

    MPI_Abort of MPICH 5 may return after it has notified the launcher, before the
    launcher has ended the ranks. In one case, the program of a failed thread continued
    past its next Barrier.
    """
    from mpi4py import MPI

    time.sleep(SPEECH_S)
    MPI.COMM_WORLD.Abort(status)
    time.sleep(PATIENCE_S)
    os._exit(status)


def end_with_output(status):
    """As `end`, after the buffers of standard output and error have been written."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    end(status)


def install():
    """Install hooks that end the program on any uncaught exception, in any thread.

    An exception that all ranks raised together (``checks.agreed_within``) needs no
    Abort: rank 0 prints it and all ranks end by themselves, unless a rank has caught
    it. If only some ranks raised an exception together, the first of them prints it
    and ends the program.

    A rank that ends without an exception (end of its program, ``sys.exit`` or
    SystemExit) records this in the journals of its jobs. If another rank then waits for
    it in a call of such a job, the watchdog of that rank ends the program.
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
            time.sleep(PATIENCE_S)  # the first of these ranks ends the program
        abort(world, error.with_traceback(trace))

    def thread_hook(args):
        if args.exc_type is not SystemExit:  # a thread may end itself by SystemExit
            abort(world, args.exc_value)

    hook.ends_the_job = True
    sys.excepthook = hook
    threading.excepthook = thread_hook
    atexit.register(journal.note_leaving)  # before mpi4py finalises MPI


def all_leave(comm):
    """Return whether every rank calls this within PATIENCE_S seconds."""
    request, end_s = comm.Ibarrier(), time.monotonic() + PATIENCE_S
    while not request.Test():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True
