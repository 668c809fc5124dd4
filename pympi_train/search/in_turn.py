"""Trainings one after another, each on all ranks: the simplest pool."""

from pympi_train.comm.checks import is_agreed, raise_together
from pympi_train.runs import job


class InTurn:
    """Trains one configuration after another on all ranks of ``comm``.

    A context manager: on rank 0 the body submits; on other ranks it gets None, after
    they have taken part in all trainings.

    Parameters
    ----------
    comm : MPI.Comm

    Notes
    -----
    Collective.
    """

    def __init__(self, comm, **ignored):
        self._comm = comm

    def __enter__(self):
        if self._comm.rank == 0:
            return self
        while (order := self._comm.bcast(None, root=0)) is not None:
            self._run(*order)
        return None

    def __exit__(self, kind, error, trace):
        if error is None or not is_agreed(error, self._comm):
            if isinstance(error, KeyboardInterrupt):
                return
            if self._comm.rank == 0:
                self._comm.bcast(None, root=0)
            raise_together(self._comm, error)

    def submit(self, config, *, name, resume=None):
        """Return the training of ``config``, which begins when it is asked for."""
        return Turn(self, config, name, resume)

    def as_completed(self, turns):
        """Yield the trainings in order, each after its end."""
        for turn in turns:
            turn.run()
            yield turn

    def train(self, config, resume):
        """Train on all ranks; return (result, error). On rank 0."""
        self._comm.bcast((config, resume), root=0)
        return self._run(config, resume)

    def _run(self, config, resume):
        try:
            return job.train(config, self._comm, resume=resume), None
        except Exception as error:
            if not is_agreed(error, self._comm):
                raise
            return None, error


class Turn:
    """A training that `InTurn` runs at the latest when its result is asked for."""

    def __init__(self, pool, config, name, resume):
        self._made_of = pool, config, resume
        self.name, self._outcome = name, None

    def run(self):
        """Train, unless that is done."""
        if self._outcome is None:
            pool, config, resume = self._made_of
            self._outcome = pool.train(config, resume)

    def done(self):
        """Return whether it has ended."""
        return self._outcome is not None

    def exception(self):
        """Return its error, or None."""
        self.run()
        return self._outcome[1]

    def result(self):
        """Return what `runs.job.train` returns, or raise its error."""
        self.run()
        result, error = self._outcome
        if error is not None:
            raise error
        return result
