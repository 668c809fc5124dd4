"""Training steps on batches that the caller provides."""

import math
from numbers import Real

from pympi_train.backends.environment import computing
from pympi_train.comm.checks import agreed_within, together
from pympi_train.comm.collectives import reduced
from pympi_train.data.batch import Batch
from pympi_train.data.sources.arrays import require_weights
from pympi_train.data.sources.base import n_rows
from pympi_train.data.sources.own_batch import OwnBatch
from pympi_train.errors import ConfigError, DataError, RankMismatchError
from pympi_train.optim.lbfgs import LBFGS
from pympi_train.train.base import BaseTrainer
from pympi_train.train.setup.agreement import require_same_ranks

BY_NUMBER = (
    "parallel: reduction exact sums rows by their number in the data set, and those of "
    "a batch have none: train by fit or prepare"
)


class Steered:
    """Runs the steps of `Trainer.step`.

    Parameters
    ----------
    trainer : Trainer
    make_feed : callable
        Returns a Feed of a Source.
    rehearse : callable
        Compiles the step's functions, given a Feed. Collective.
    batch : Batch
        The first one.

    Raises
    ------
    ConfigError
        On every rank, if the trainer can only train by ``fit``.

    Notes
    -----
    Collective.
    """

    def __init__(self, trainer, make_feed, rehearse, batch):
        self._trainer, self._make_feed = trainer, make_feed
        require_steps(trainer)
        with together(trainer.comm):
            _require_batch(batch)
            if trainer.parallel.n_groups is not None:
                raise ConfigError(BY_NUMBER)
            self._nothing = make_feed(OwnBatch(_first(batch, 0)))
        rehearse(self._nothing)

    def step(self, batch, lr):
        """Run one step; see `Trainer.step`. Collective."""
        feed, rows, error = self._nothing, slice(0, 0), None
        if lr is not None:
            require_one_rate(self._trainer.comm, lr)
        lr = self._trainer.optimizer.lr if lr is None else lr
        try:
            _require_batch(batch)
            made = self._make_feed(OwnBatch(batch))
            made.check(self._trainer.model)
            feed, rows = made, slice(0, len(batch.x))
        except Exception as caught:
            error = caught
        note_rows(self._trainer, rows)
        with computing():
            return self._trainer.strategy.step(
                feed, rows, lr, error=error, stop=self._trainer.stopping
            )


def note_rows(trainer, rows):
    """Tell a GradientNoise how many rows the next global batch has. Collective."""
    if trainer.noise is not None:
        (found,) = reduced(trainer.comm, [n_rows(rows)])
        trainer.noise.n_rows = int(found)


def _first(batch, n):
    """Return the first ``n`` rows of a batch."""
    return Batch(*(None if array is None else array[:n] for array in batch[:3]))


def _require_batch(batch):
    if not isinstance(batch, Batch):
        raise TypeError(f"expected a Batch(x, y, weights), got {type(batch).__name__}")
    if batch.y is None:
        raise DataError("a batch to train on needs targets, got y=None")
    if batch.weights is not None:
        require_weights(batch.weights)


def require_one_rate(comm, lr):
    """Raise on every rank unless all pass the same finite learning rate >= 0."""
    with together(comm):
        if not isinstance(lr, Real) or not 0 <= lr < math.inf:
            raise ConfigError(f"lr: expected a finite number >= 0, got {lr!r}")
    highest, lowest = reduced(comm, [lr, -lr], op="MAX")
    if highest != -lowest:
        text = f"lr differs between ranks: from {-lowest:g} to {highest:g}"
        raise agreed_within(comm, RankMismatchError(text))


def require_steps(trainer):
    """Raise ConfigError on every rank if ``trainer`` can only train by ``fit``."""
    if trainer.parallel.strategy == "server":
        text = "parallel: strategy server trains by fit alone"
    elif isinstance(trainer.optimizer, LBFGS):
        text = "optimizer LBFGS trains by fit alone: it takes all rows"
    else:
        return
    raise agreed_within(trainer.comm, ConfigError(text))


class Steerable(BaseTrainer):
    """A training whose steps a caller takes one by one."""

    def prepare(self, dataset):
        """Return ``step(rows)``, which trains on local rows of ``dataset`` once.

        It serves to time single steps or to write a training loop; ``fit`` is the
        usual way. A step returns the weight of the global batch and its mean loss.
        Collective, and so is ``step``.
        """
        self._require_idle()
        require_steps(self)
        require_same_ranks(self.comm, dataset)
        self._placement.require_placed(dataset)
        feed = self._made.feed(dataset)

        def step(rows):
            self._require_idle()
            note_rows(self, rows)
            with computing():
                outcome = self.strategy.step(feed, rows, self.optimizer.lr)
            return outcome.weight, outcome.loss

        return step

    def step(self, batch, lr=None):
        """Train once on a global batch, of which ``batch`` is this rank's share.

        It serves training loops of your own and batches that are in no Dataset. Such
        steps count in ``steps``, and so in a schedule of ``fit``; they belong to no
        epoch.

        Parameters
        ----------
        batch : Batch
            In host memory, in the model's dtypes; may have no rows. More rows than
            ``micro_batch_size`` are computed in parts.
        lr : float, optional
            Learning rate, equal on all ranks; by default the optimizer's. The schedule
            is not used.

        Returns
        -------
        Outcome
            Of the global batch. With local steps it is that of this rank's share; the
            ranks synchronise every few steps, and in `settle`.

        Raises
        ------
        ConfigError
            On every rank, with servers, exact reduction or LBFGS.
        RankMismatchError
            On every rank, if the learning rate differs between ranks.
        DivergenceError
            On every rank, if loss or gradient is NaN or infinite. The parameters are
            unchanged.
        RemoteRankError
            If another rank failed or its batch does not fit. That rank raises its own
            error. The parameters are unchanged.

        Notes
        -----
        Collective.
        """
        self._require_idle()
        if self._steered is None:
            made_of = self._placement.feed, self._made.rehearse
            self._steered = Steered(self, *made_of, batch)
        return self._steered.step(batch, lr)

    def settle(self):
        """Synchronise the ranks after local steps taken by `step`. Collective.

        ``fit`` calls it at the end of an epoch. Without local steps it does nothing.
        """
        self._require_idle()
        self.strategy.settle()
