"""A training of a pool, as those who submitted it see it."""

from pympi_train.errors import JobError
from pympi_train.pool.entry import STUCK
from pympi_train.pool.history import CANCELLED, FAILED, FINISHED, RUNNING


class PoolFuture:
    """A training of a pool, with methods of `concurrent.futures.Future`.

    There are no callbacks, and no time limits: rank 0 trains while it waits.

    Attributes
    ----------
    name, directory : str
    """

    def __init__(self, pool, entry):
        self._pool, self._entry = pool, entry
        self.name, self.directory = entry.name, entry.directory

    @property
    def number(self):
        """Jobs that end at the same time are yielded in this order."""
        return self._entry.needs.number

    @property
    def status(self):
        """waiting, running, finished, failed, interrupted, cancelled or skipped."""
        return FAILED if self._entry.status == STUCK else self._entry.status

    def done(self):
        """Return whether it is over."""
        return self._entry.is_over

    def running(self):
        """Return whether it runs."""
        return self._entry.status == RUNNING

    def cancel(self):
        """End it, with a checkpoint if it runs; return False if it was over.

        True if it was cancelled before.
        """
        if self._pool._has_ended:
            return self.cancelled()
        return self._pool._coordinator.cancel(self.name)

    def cancelled(self):
        """Return whether it was cancelled."""
        return self._entry.status == CANCELLED

    def result(self):
        """Work until it is over; return what `runs.job.train` returns.

        Raises
        ------
        JobError
            If it is not finished.
        """
        error = self.exception()
        if error is not None:
            raise error
        return self._entry.result

    def exception(self):
        """Work until it is over; return None, or why it is not finished."""
        self._pool.wait(self.done)
        if self.status == FINISHED:
            return None
        why = f": {self._entry.error}" if self._entry.error else ""
        error = JobError(f"job {self.name}: {self.status}{why}")
        error.cause = self._entry.cause
        return error
