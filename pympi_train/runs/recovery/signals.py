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
