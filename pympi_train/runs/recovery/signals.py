"""Signals that end a training in good order, and the time at which its job ends."""

import os
import signal
import time
from contextlib import contextmanager

ORDERLY = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
INTERRUPTED = 75  # exit status after a checkpoint: EX_TEMPFAIL of sysexits.h


class Stop:
    """What has asked this rank to end the training.

    Parameters
    ----------
    request : callable
        Called in a signal handler: asks for a stop at the next step.

    Attributes
    ----------
    signal : int
        Number of the signal that this rank received; 0 for none.
    """

    def __init__(self, request):
        self._request, self.signal = request, 0

    def _handle(self, number, frame):
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second time: end at once
        self.signal = self.signal or number
        self._request()


@contextmanager
def orderly(request):
    """Yield a `Stop`; within the body, signals ask for a stop and end nothing.

    Does nothing in other threads than the main one, where Python has no signals.
    """
    stop, before = Stop(request), {}
    try:
        for number in ORDERLY:
            try:
                before[number] = signal.signal(number, stop._handle)
            except ValueError:  # not the main thread
                break
        yield stop
    finally:
        for number, handler in before.items():
            # None: a handler that Python did not install, and cannot install again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def ends_at(max_time_s, started_s, environ=os.environ):
    """Return the time, in seconds since 1970, at which the training must have ended.

    Parameters
    ----------
    max_time_s : float or None
        ``[checkpoint] max_time``: seconds from ``started_s`` on.
    started_s : float
        ``time.time()`` when the process began.
    environ : dict
        With SLURM_JOB_END_TIME, which SLURM sets in jobs that have a time limit.

    Returns
    -------
    float
        The earlier one; infinite without either.
    """
    known = [float("inf")]
    if max_time_s is not None:
        known.append(started_s + max_time_s)
    text = environ.get("SLURM_JOB_END_TIME", "")
    if text.isdecimal() and int(text) > time.time():
        known.append(float(text))
    return min(known)
