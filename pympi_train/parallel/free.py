"""The training step of strategies whose ranks do not synchronise in each step."""

import abc
from contextlib import contextmanager

from pympi_train.comm.collectives import reduced
from pympi_train.comm.watch import journal as j
from pympi_train.errors import DivergenceError
from pympi_train.parallel.base import Outcome
from pympi_train.parallel.whole_gradient import WholeGradient


class Free(WholeGradient):
    """A step on this rank's share of a global batch, without waiting for other ranks.

    ``step`` returns the weight and mean loss of this rank's share. After an exception,
    steps compute nothing until the ranks synchronise; then all ranks raise.
    """

    def __init__(self, comm, layout, optimizer, ops):
        super().__init__(comm, layout, optimizer, ops)
        self._error = None

    @abc.abstractmethod
    def advance(self, *, lr, weight, loss, l2, clip_norm, error, stop):
        """Update parameters by the gradient in ``grads``, or send it.

        Parameters
        ----------
        lr, l2, clip_norm
            As for ``Synchronous.update``.
        weight, loss : float
            Sums over this rank's share.
        error : Exception or None
            The error on this rank since the ranks last synchronised.
        stop : bool
            Whether this rank requests to stop.

        Returns
        -------
        bool
            Whether the training ends after this step.

        Raises
        ------
        DivergenceError, RemoteRankError
            On every rank, when they synchronise.
        """

    def step(self, feed, rows, lr, *, error=None, stop=False):
        """Compute a gradient and update parameters by it; see `Strategy.step`.

        The outcome's weight and loss are those of this rank's share.
        """
        if self._error is None:
            self._error = error
        weight = loss = 0.0
        if self._error is None:
            weight, loss = self._compute(feed, rows)
        penalty = float(self.penalty(self._l2))  # like the loss, before the update
        self.laps.lap("compute")
        self._mark(j.EXCHANGE, self.count + 1)
        with self._synchronising():
            stop = self.advance(
                lr=lr,
                weight=weight,
                loss=loss,
                l2=self._l2,
                clip_norm=self._clip_norm,
                error=self._error,
                stop=stop,
            )
        self.count += 1
        self.laps.lap("update")
        self.end_step()
        return Outcome(weight, (loss / weight if weight > 0 else 0.0) + penalty, stop)

    def totals(self, weight, loss):
        """Return the totals for all ranks; see `Strategy.totals`. Collective."""
        return tuple(reduced(self.comm, [weight, loss]).tolist())

    def share_of_totals(self, weight, loss):
        """Return the totals on rank 0, zeros elsewhere; see `Strategy`."""
        return (weight, loss) if self.comm.rank == 0 else (0.0, 0.0)

    def settle(self):
        """Synchronise, and compare the parameters every ``check_every`` steps.

        Collective.
        """
        with self._synchronising():
            stop = self._settle()
        self.check_drift()
        return stop

    @abc.abstractmethod
    def _settle(self):
        """Synchronise, if there were steps since the last time. Collective.

        Returns whether some rank requests to stop.
        """

    @contextmanager
    def _synchronising(self):
        """Run a body that may raise on all ranks; drop the stored error if it does."""
        try:
            yield
        except DivergenceError as error:
            self._error = None
            self.count -= error.undone
            raise self._divergence(str(error)) from error
        except Exception as error:
            self._error = None
            self.count -= getattr(error, "undone", 0)
            raise

    def _compute(self, feed, rows):
        """Compute ``grads`` of this rank's share; return its weight and loss."""
        weight, losses, n_batches = 0.0, [], feed.count(rows)
        step = self.count + 1
        self._mark(j.INPUT, step)
        try:
            for index, batch in enumerate(feed.batches(rows, n_batches)):
                self.laps.lap("input")
                self._mark(j.FORWARD, step)
                weight += feed.weight_of(batch)
                losses.append(self._model.loss(self.param_views, batch))
                self._mark(j.BACKWARD, step)
                last = index == n_batches - 1
                self.backward(self._model, self.param_views, index, last)
                self.laps.lap("compute")
            feed.fetch_ahead()  # while a GPU runs the queued work
            return weight, self._await_losses(losses)
        except Exception as caught:
            self._error = caught
            return 0.0, 0.0
