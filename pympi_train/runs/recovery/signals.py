"""Signals that end a training in good order, and the time at which its job ends."""

import os
import signal
import time
from contextlib import contextmanager

EARLY = (signal.SIGTERM, signal.SIGUSR1)
WITH_CTRL_C = (*EARLY, signal.SIGINT)  # for ranks that may have no training
INTERRUPTED = 75  # exit status after a checkpoint: EX_TEMPFAIL of sysexits.h
# SLURM sends a signal to all processes of a step. The program that runs a container is
# one of them, and passes it on: the rank receives it twice.
ECHO_S = 2.0


class Stop:
    """What has asked this rank to end the training.

    Attributes
    ----------
    signal : int
        Number of the signal that this rank received; 0 for none.
    """

    def __init__(self):
        self.signal = 0
        self._request, self._has_begun, self._noted_s = None, False, 0.0

    @contextmanager
    def during(self, request):
        """Within the body, a signal asks for a stop, also one that came before.

        Parameters
        ----------
        request : callable
            Called in a signal handler: asks for a stop at the next step.
        """
        before = _install(self.handle, (signal.SIGINT,))
        self._request, self._has_begun = request, True
        try:
            if self.signal:
                request()
            yield
        finally:
            self._request = None
            _restore(before)

    def handle(self, number, frame):
        """Note a signal: a signal handler."""
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second time: end at once
        if self.signal and not self._has_begun:
            if time.monotonic() - self._noted_s < ECHO_S:
                return
            signal.signal(number, signal.SIG_DFL)  # loading hangs, perhaps
            os.kill(os.getpid(), number)
            return
        if not self.signal:
            self.signal, self._noted_s = number, time.monotonic()
        if self._request is not None:
            self._request()


@contextmanager
def orderly(numbers=EARLY):
    """Yield a `Stop`; within the body, the signals ``numbers`` end nothing.

    Those that come before the training begins are noted, and obeyed at its first step:
    no rank may leave alone. Does nothing in other threads than the main one, where
    Python has no signals.
    """
    stop = Stop()
    before = _install(stop.handle, numbers)
    try:
        yield stop
    finally:
        _restore(before)


def _install(handler, numbers):
    """Install a handler; return those before, by number."""
    before = {}
    for number in numbers:
        try:
            before[number] = signal.signal(number, handler)
        except ValueError:  # not the main thread
            break
    return before


def _restore(before):
    for number, handler in before.items():
        # None: a handler that Python did not install, and cannot install again.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


class Deadline:
    """When a training must have ended: by its own limit and by that of its job.

    Parameters
    ----------
    max_time_s : float or None
        ``[checkpoint] max_time``: seconds since the process began.
    age_s : float
        Seconds since the process began, now.
    environ : dict
        With SLURM_JOB_END_TIME, which SLURM sets in jobs that have a time limit.

    Notes
    -----
    If the clock of the machine is set, ``max_time`` does not change. The end of the job
    does, because SLURM goes by the clock too.
    """

    def __init__(self, max_time_s, age_s, environ=os.environ):
        limit_s = float("inf") if max_time_s is None else max_time_s
        self._ends_s = time.monotonic() - age_s + limit_s
        text = environ.get("SLURM_JOB_END_TIME", "")
        is_ahead = text.isdecimal() and int(text) > time.time()
        self._job_ends_at_s = float(text) if is_ahead else float("inf")

    def left_s(self):
        """Return the seconds that are left, negative if it is over; infinite without
        a limit."""
        return min(
            self._ends_s - time.monotonic(), self._job_ends_at_s - time.time()
        )
