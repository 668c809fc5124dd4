"""A step of a strategy whose ranks do not meet in each step."""

from contextlib import contextmanager

from pympi_train.comm.watch import journal as j
from pympi_train.errors import DivergenceError
from pympi_train.parallel.step import Step


class FreeStep(Step):
    """What this rank does with its share of a global batch.

    ``run`` returns the weight and mean loss of this rank's own share. An exception is
    kept, and steps become idle, until the strategy lets the ranks meet and raises it
    everywhere.
    """

    _error = None

    def run(self, feed, rows, lr):
        """Compute a gradient, and let the strategy move parameters by it.

        As `Step.run`, but weight and loss are this rank's. The ranks meet every now
        and then, and there what went wrong on one is raised on all.
        """
        strategy, weight, loss = self.strategy, 0.0, 0.0
        if self._error is None:
            weight, loss = self._compute(feed, rows, strategy.param_views)
        penalty = float(strategy.penalty(self._l2))  # before the update, as the loss
        self.laps.lap("compute")
        self._mark(j.EXCHANGE, self.count + 1)
        with self._meeting():
            strategy.advance(
                lr=lr,
                weight=weight,
                loss=loss,
                l2=self._l2,
                clip_norm=self._clip_norm,
                error=self._error,
            )
        self.count += 1
        self._mark(j.BETWEEN, self.count)
        self.laps.lap("update")
        return weight, (loss / weight if weight > 0 else 0.0) + penalty

    def settle(self):
        with self._meeting():
            self.strategy.settle()
        self.check_drift()

    @contextmanager
    def _meeting(self):
        """Run what may raise an error on all ranks; none is kept after that."""
        try:
            yield
        except DivergenceError as error:
            self._error = None
            self.count -= error.undone
            raise self._divergence(str(error)) from error
        except Exception:
            self._error = None
            raise

    def _compute(self, feed, rows, params):
        n_batches = feed.count(rows)
        weight, losses, self._error = self._forward(feed, rows, params, n_batches)
        if self._error is None:
            self._error = self._backward(params, n_batches)
        feed.fetch_ahead()  # while a GPU computes what is queued
        loss, self._error = self._await_losses(losses, self._error)
        return (weight, loss) if self._error is None else (0.0, 0.0)
