"""Steps that a caller steers, on batches of the caller's own."""

from types import SimpleNamespace

from pympi_train.comm.checks import together
from pympi_train.errors import ConfigError
from pympi_train.optim.lbfgs import LBFGS
from pympi_train.train.fit import quietly


class Steered:
    """Takes steps on batches that are handed in.

    Parameters
    ----------
    trainer : Trainer
    make_feed : callable
        Returns a Feed of anything with x, y, weights and a length.
    rehearse : callable
        Compiles everything, given a Feed. Collective.
    batch : Batch
        The first one.

    Raises
    ------
    ConfigError
        On every rank, if the trainer takes its steps by ``fit`` alone.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """

    def __init__(self, trainer, make_feed, rehearse, batch):
        self._trainer, self._make_feed = trainer, make_feed
        with together(trainer.comm):
            _require_steps(trainer)
            self._nothing = make_feed(_rows(batch, 0))
        rehearse(self._nothing)

    def step(self, batch, lr):
        """Take one step; see `Trainer.step`. Collective."""
        feed, rows, error = self._nothing, slice(0, 0), None
        try:
            made = self._make_feed(_rows(batch, len(batch.x)))
            made.check(self._trainer.model)
            feed, rows = made, slice(0, len(batch.x))
        except Exception as caught:
            error = caught
        with quietly():
            return self._trainer.strategy.step(
                feed, rows, lr, error=error, stop=self._trainer.stopping
            )


class _Rows(SimpleNamespace):
    """The arrays of a batch, as a Feed takes those of a Dataset."""

    def __len__(self):
        return len(self.x)


def _rows(batch, n):
    x, y, weights = (None if array is None else array[:n] for array in batch)
    return _Rows(x=x, y=y, weights=weights)


def _require_steps(trainer):
    if trainer.parallel.strategy == "server":
        raise ConfigError("parallel: strategy server trains by fit alone")
    if isinstance(trainer.optimizer, LBFGS):
        raise ConfigError("optimizer LBFGS trains by fit alone: it takes all rows")
    if trainer.parallel.n_groups is not None:
        raise ConfigError(
            "parallel: reduction exact sums rows by their number in the data set, and "
            "those of a batch have none: train by fit or prepare"
        )
