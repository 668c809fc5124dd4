"""Starts a training again when its ranks die, as long as it makes progress."""

import signal
import time

from pympi_train.launch.launched import Launched
from pympi_train.launch.slots import startable_ranks
from pympi_train.launch.training import BEGUN, ENDED
from pympi_train.runs.recovery.signals import INTERRUPTED, orderly

DONE, FAILED, USER_ERROR = 0, 1, 2
HUNG = 124  # as of timeout(1), and of ranks that end because one of them hangs
EXIT_S = 60.0  # for ranks to end after the result has been written
MOST_DELAY_S = 60.0
TICK_S = 0.1
AGAIN_S = 15.0  # between two looks; until a signal is sent again, which may be lost
NEVER = object()
# MPICH reports the number of the signal that ended a rank, others add 128.
FATAL = {n: signal.Signals(n).name for n in (4, 6, 7, 8, 9, 11, 15)}


class Supervisor:
    """Starts ranks, passes signals on, and starts the ranks again.

    Parameters
    ----------
    launcher : Launcher
    training : Training
    n_ranks, min_ranks : int
        How many ranks to start; how many suffice.
    restarts : int
        Maximum number of starts after the first.
    start_timeout_s : float
        Maximum time until the first step; 0: no limit.
    say : callable
        Prints a line.
    """

    def __init__(
        self, launcher, training, n_ranks, min_ranks, restarts, start_timeout_s, say
    ):
        self._launcher, self._training = launcher, training
        self._n_ranks, self._min_ranks = n_ranks, min_ranks
        self._restarts, self._start_timeout_s = restarts, start_timeout_s
        self._say = say
        self._job = self._stop = None
        self._failed_at = NEVER  # the newest checkpoint at the last failure

    def run(self):
        """Start the ranks until the training has ended; return the exit status.

        Returns
        -------
        int
            0: finished. 2: an error that the user can correct. 75: interrupted, and can
            be continued. Else that of the ranks when they were given up.

        Raises
        ------
        LaunchError
            If no ranks can be started.
        KeyboardInterrupt
            At a second SIGINT, after the ranks were ended.
        """
        n_failures = 0
        with orderly() as self._stop, self._stop.during(self._pass_on):
            while True:
                status = self._run_once()
                final = self._verdict(status, n_failures)
                if final is not None:
                    return final
                n_failures += 1
                delay_s = min(2.0 ** (n_failures - 1), MOST_DELAY_S)
                self._say(
                    f"{describe_status(status)}; {self._describe_progress()}; start "
                    f"{n_failures} of {self._restarts} again in {delay_s:g} s"
                )
                self._sleep(delay_s)
                if self._stop.signal:
                    return INTERRUPTED

    def _pass_on(self):
        """Ask the ranks to save and end: in a signal handler.

        All launchers pass SIGUSR1 on, and SIGTERM in different ways.
        """
        if self._job is not None:
            self._job.send(signal.SIGUSR1)

    def _run_once(self):
        """Start the ranks and wait for their end; return the exit status."""
        n_ranks, fewer = self._n_ranks, None
        if self._min_ranks < n_ranks:
            n_ranks = startable_ranks(self._launcher, self._min_ranks, n_ranks)
            if n_ranks < self._n_ranks:
                fewer = n_ranks
                self._say(f"{n_ranks} ranks: no more can be started now")
        argv = self._launcher.command(n_ranks, self._training.command(fewer))
        with Launched(argv) as job:
            self._job = job
            try:
                if self._stop.signal:  # it came before there was a job
                    self._pass_on()
                return self._wait(job)
            finally:
                self._job = None

    def _wait(self, job):
        """Wait for the end of a job; HUNG if it hangs where no rank can notice that.

        The ranks watch each other from the start of MPI to its end only. Open MPI's
        mpirun may wait for the daemon of a lost node after they have ended.
        """
        began_s = ended_s = held_s = time.monotonic()
        limit_s, has_begun, was_held = self._start_timeout_s, False, False
        while (status := job.wait(AGAIN_S)) is None:
            if self._stop.signal:
                self._pass_on()
            now_s = time.monotonic()
            has_begun = has_begun or self._training.has_written(BEGUN)
            if not has_begun and 0 < limit_s <= now_s - began_s:
                self._say(f"no first step within --start-timeout {limit_s:g} s")
                return HUNG
            if not self._training.has_written(ENDED):
                ended_s = now_s
            elif now_s - ended_s >= EXIT_S:
                self._say("the result is written, but ranks do not end: they are ended")
                return DONE
            if not has_begun or self._training.is_running():
                held_s, was_held = now_s, has_begun
            elif was_held and now_s - held_s >= EXIT_S:
                self._say("the training has ended, but its launcher waits: it is ended")
                return HUNG
        return status

    def _verdict(self, status, n_failures):
        """Return the exit status of this program; None: start the ranks again."""
        if status == USER_ERROR:
            return status
        if status == DONE:
            # Open MPI reports success if a whole node is lost.
            if self._training.is_finished():
                return status
            status = FAILED
        if self._stop.signal:
            if status != INTERRUPTED:
                self._say(
                    f"{describe_status(status)} before they saved; "
                    f"{self._describe_progress()}"
                )
            return INTERRUPTED
        if status == INTERRUPTED and self._training.is_out_of_time():
            return status
        # By its number too: it may have the step of a damaged one before it.
        newest = self._training.newest()
        if newest == self._failed_at:
            why = "they have ended twice without a checkpoint in between"
        elif n_failures >= self._restarts:
            why = f"they have been started again {n_failures} times"
        else:
            self._failed_at = newest
            return None
        self._say(
            f"given up: {describe_status(status)}, and {why}; "
            f"{self._describe_progress()}; the cause is printed above"
        )
        return status

    def _describe_progress(self):
        newest = self._training.newest()
        return "no checkpoint yet" if newest is None else f"saved: {newest.path}"

    def _sleep(self, delay_s):
        """Wait; return early if a signal comes."""
        end_s = time.monotonic() + delay_s
        while not self._stop.signal and time.monotonic() < end_s:
            time.sleep(TICK_S)


def describe_status(status):
    """Return a clause on the exit status of the ranks."""
    name = FATAL.get(status - 128 if status > 128 else status)
    if status == DONE:
        return "the ranks ended before the training was finished"
    return f"the ranks ended with status {status}" + (f" ({name})" if name else "")
