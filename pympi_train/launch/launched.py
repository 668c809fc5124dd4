"""A launcher and its ranks, of which nothing is left at the end."""

import ctypes
import glob
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress

from pympi_train.launch.leftovers import remove_session, remove_shared_memory

TAG = "PYMPI_TRAIN_LAUNCH"  # environment variable that marks the processes of a job
LAST_WORDS_S = 5.0  # time for a launcher to end its ranks
GONE_S = 20.0  # maximum wait for killed processes to disappear
PR_SET_PDEATHSIG = 1  # of prctl(2)


class Launched:
    """A launcher (mpirun, srun) that runs; leaving the ``with`` block ends its ranks.

    Parameters
    ----------
    argv : list of str
    stdout, stderr : optional
        As for `subprocess.Popen`; default: those of this process.

    Notes
    -----
    The launcher is in a session of its own, so that a Ctrl-C reaches this process
    alone. If this process dies, the launcher receives SIGTERM.

    MPICH puts each rank, and Open MPI each rank's process group, in a place of its own.
    The processes on this node are therefore found by a variable in their environment.
    Those on other nodes are the launcher's to end.
    """

    def __init__(self, argv, stdout=None, stderr=None):
        self._tag, self._began_s = secrets.token_hex(16), time.time()
        self._process = subprocess.Popen(
            argv,
            env={**os.environ, TAG: self._tag},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=_end_with_parent(),
        )

    def wait(self, timeout_s):
        """Return the exit status; None if it still runs.

        If the launcher was ended by a signal, the status is 128 + its number, as shells
        have it.
        """
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return 128 - status if status < 0 else status

    def send(self, number):
        """Send a signal to the launcher, which passes it on."""
        self._process.send_signal(number)  # does nothing if it has ended

    def end(self):
        """Kill what still runs, and remove the shared memory of killed ranks."""
        is_clean = self._process.poll() == 0
        if self._process.poll() is None:
            self._process.terminate()  # it also ends ranks on other nodes
            if self.wait(LAST_WORDS_S) is None:
                with suppress(OSError):
                    os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        _kill_all(self._tag)
        if not is_clean:
            remove_shared_memory(self._began_s)
            remove_session(self._process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def tagged_processes(tag):
    """Return the pids of the processes on this node with a tag in their environment."""
    needle, found = f"{TAG}={tag}\0".encode(), []
    for path in glob.glob("/proc/[0-9]*/environ"):
        with suppress(OSError):  # ended meanwhile, or another user's
            with open(path, "rb") as file:
                if needle in file.read():
                    found.append(int(path.split("/")[2]))
    return found


def _kill_all(tag):
    """Kill the tagged processes, and wait until they are gone.

    A rank of the last start that still wrote would disturb the next.
    """
    end_s = time.monotonic() + GONE_S
    while pids := tagged_processes(tag):
        if time.monotonic() > end_s:
            return  # in an uninterruptible wait: the file system does not answer
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _end_with_parent():
    """Return a function that lets the process which calls it receive SIGTERM when its
    parent dies; None where that is not possible."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def after_fork():
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # it has died already

    return after_fork
