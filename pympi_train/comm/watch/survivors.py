"""Ranks that go on when others of their job have died.

The calls are those of ULFM (User-Level Failure Mitigation): an MPI call that needs a
dead rank raises; `Revoke` makes all calls on a communicator raise, on every rank;
`Shrink` makes a communicator of the ranks that are left; `Agree` completes on all of
these, and with the same result, whoever has died.

References
----------
.. [1] W. Bland, A. Bouteiller, T. Herault, G. Bosilca, J. Dongarra, "Post-failure
   recovery of MPI communication capability", Int. J. High Perform. Comput. Appl. 27
   (2013).
"""

import os
import sys
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np

from pympi_train.comm.checks import agreed_within, is_agreed
from pympi_train.comm.watch.watchdog import TIMED_OUT
from pympi_train.errors import ConfigError
from pympi_train.mpi_libraries import library_title

TRY_S = 10.0  # maximum wait for a call that hangs if failures are not reported
SEGMENTS = "/dev/shm/"  # MPI libraries have their shared memory here on Linux

_left: list = []  # the communicator of the processes that are left, after a failure


def current_world():
    """Return the communicator of all processes of the program that are alive."""
    from mpi4py import MPI

    return _left[-1] if _left else MPI.COMM_WORLD


def require_ulfm(comm):
    """Raise ConfigError on every rank unless MPI reports ranks that die. Collective.

    Found by trying: a revoked communicator must still be able to agree. Without
    ``--with-ft ulfm``, that call of Open MPI never completes.
    """
    from mpi4py import MPI

    found = MPI.ERR_PROC_FAILED != MPI.ERR_UNKNOWN and _agrees_when_revoked(comm)
    if not comm.allreduce(found, op=MPI.LAND):
        library = library_title(MPI.Get_library_version())
        raise agreed_within(
            comm,
            ConfigError(
                f"[elastic] survive = true: this MPI ({library}) does not report ranks "
                "that die. It needs ULFM: Open MPI 5, started by `mpirun --with-ft "
                "ulfm`; with any MPI, `pympi-train launch` starts the training again"
            ),
        )


def _agrees_when_revoked(comm):
    from mpi4py import MPI

    try:
        trial = comm.Dup()
        comm.Barrier()  # see `register`; one of ``trial`` could be revoked
        trial.Revoke()
        flag, end_s = np.ones(1, np.intc), time.monotonic() + TRY_S
        request = trial.Iagree(flag)
        while not request.Test():
            if time.monotonic() > end_s:
                return False
            time.sleep(0.001)
    except (MPI.Exception, NotImplementedError):
        return False
    return True


def register(family, comm):
    """Add a new communicator to those that `revoke` revokes. Collective over ``comm``.

    The barrier is for Open MPI 5.0: a process that is still making a communicator when
    another one revokes it crashes (ompi_comm_revoke_local).
    """
    from mpi4py import MPI

    MPI.Intracomm.Barrier(comm)
    family.append(comm)


def revoke(comms):
    """Make every call on these communicators raise, also calls that wait already."""
    from mpi4py import MPI

    for comm in comms:
        with suppress(MPI.Exception):
            if comm and not comm.Is_revoked():
                comm.Revoke()


def is_alive(comm):
    """Return whether no rank of ``comm`` is known to have died. Not collective."""
    from mpi4py import MPI

    return not comm.Is_revoked() and comm.Get_failed() == MPI.GROUP_EMPTY


def require_alive(comm):
    """Raise MPI.Exception unless `is_alive`. Not collective.

    To be called after each collective, at 0.2 us. If a rank dies in one, Open MPI
    5.0.11 may return from it as if it were complete: in 13 of 25 jobs of four ranks,
    Allgatherv did so on some rank, with a part of its result missing.
    """
    from mpi4py import MPI

    if not is_alive(comm):
        raise MPI.Exception(MPI.ERR_PROC_FAILED)


def is_survived(comm, error):
    """Return whether ``error`` is MPI's, and the ranks of ``comm`` go on after one.

    Parameters
    ----------
    comm : MPI.Comm
        Guarded, or not.
    error : BaseException
    """
    from mpi4py import MPI

    is_of_mpi = isinstance(error, MPI.Exception)
    return is_of_mpi and getattr(comm, "family", None) is not None


def outlive(comm, work, timeout_s):
    """Return ``work(comm)``; call it again with the ranks that are left if some die.

    Parameters
    ----------
    comm : MPI.Comm
        All ranks of the program; see `require_ulfm`.
    work : callable
        Raises an MPI.Exception on every rank if a rank dies; see ``Ranks``. The second
        and later calls get another communicator.
    timeout_s : float
        A rank ends its process if the ranks that are left do not meet in this time. 0:
        no limit.

    Notes
    -----
    Collective.

    Ranks notice a failure at different times, and some have completed their work. So
    each call of ``work`` ends with an agreement: either every rank returns, or every
    rank takes part in the next call. If MPI fails and no rank has died, the error is
    raised.
    """
    from mpi4py import MPI

    left = comm
    while True:
        error, result, is_failure = None, None, False
        try:
            result = work(left)
        except Exception as caught:
            error = caught
            if isinstance(error, MPI.Exception) or not is_alive(left):
                is_failure = True
                revoke([left])
            elif not is_agreed(error, left):
                raise
        with _limited(left, timeout_s):
            if _agree(left, not is_failure):
                if error is None:
                    return result
                raise error
            revoke([comm])
            n_before, left = left.size, _shrunk(comm)
        if left.size == n_before:
            raise error or RuntimeError("an MPI call failed on another rank")
        _left[:] = [left]


def _agree(comm, flag):
    """Return whether ``flag`` is true on all ranks and none of them has died."""
    from mpi4py import MPI

    try:
        return bool(comm.Agree(int(flag)))
    except MPI.Exception:  # on every rank
        return False


def _shrunk(comm):
    """Return a communicator of the ranks of ``comm`` that are alive."""
    while True:
        left = comm.Shrink()
        if _agree(left, True):
            return left


@contextmanager
def _limited(comm, timeout_s):
    """End this process if the body takes longer than ``timeout_s``."""

    def end():
        sys.stderr.write(
            f"rank {comm.rank} of {comm.size}: the ranks that are left did not agree "
            f"within [parallel] timeout_s = {timeout_s:g}: ending the process\n"
        )
        sys.stderr.flush()
        os._exit(TIMED_OUT)

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    if timeout_s:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def dead_ranks(comm, left):
    """Return the ranks of ``comm`` that are not in ``left``."""
    from mpi4py import MPI

    before, after = comm.Get_group(), left.Get_group()
    lost = MPI.Group.Difference(before, after)
    ranks = MPI.Group.Translate_ranks(lost, range(lost.size), before)
    for group in (before, after, lost):
        if group != MPI.GROUP_EMPTY:
            group.Free()
    return list(ranks)


def leave_without_mpi(status):
    """End this process with an exit status, without MPI_Finalize; never returns.

    After a rank has died, MPI_Finalize of Open MPI 5.0 may hang. The shared memory that
    it would have removed is removed here; processes that have mapped it keep it.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    with suppress(OSError):
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            found = {line.split(maxsplit=5)[-1].rstrip("\n") for line in maps}
        for path in found:
            if path.startswith(SEGMENTS):
                with suppress(OSError):
                    os.unlink(path)
    os._exit(status)
