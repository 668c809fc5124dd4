"""The step of strategies whose ranks synchronise in each: one batch, one update."""

import abc
import math

from pympi_train.comm.checks import raise_together
from pympi_train.comm.control import Control
from pympi_train.comm.watch import journal as j
from pympi_train.errors import DivergenceError
from pympi_train.parallel.base import Outcome, Strategy, is_of_mpi, leave


class Synchronous(Strategy):
    """Forward and backward, control exchange, exchange of gradients, update.

    The control exchange comes when a rank has computed all it can alone. So whatever
    goes wrong in forward or backward, on any rank, is known to all before the first
    large message and before a parameter changes. A small gradient comes with it.

    Where ranks exchange gradients while they compute them (``_exchanges_early``), a
    rank that fails takes part in what is left of the step, with NaN for what it has not
    computed. So no rank's sum can be used, and all then ask who failed.
    """

    _loss_scale = 1.0  # of the loss and the gradients of the next step
    _scaled_by = 1.0  # and of this one
    _exchanges_early = False  # ranks exchange in this step's forward or backward
    _sent_with_control = None  # a small gradient, so that ranks wait but once

    def __init__(self, comm, layout, optimizer, ops):
        super().__init__(comm, layout, optimizer, ops)
        self._control = Control(comm)
        self._error = None  # of this rank, in this step
        self._early = False  # whether ranks exchange early in this step

    @abc.abstractmethod
    def backward(self, model, params, index, last):
        """Run ``model.gradient`` for micro batch ``index``; ``last`` if it is that."""

    @abc.abstractmethod
    def combine(self):
        """Sum the gradients over the ranks. Collective."""

    @abc.abstractmethod
    def update(self, *, lr, weight, l2, clip_norm=None):
        """Update the parameters from the summed gradient of a batch. Collective.

        Parameters
        ----------
        lr : float
            Learning rate of this update.
        weight : float
            Total weight of the global batch, > 0: the gradient sum is divided by it.
        l2 : float
            Factor of ``l2 / 2 |W|^2``.
        clip_norm : float, optional
            Maximum norm of the mean gradient.

        Raises
        ------
        DivergenceError
            On every rank, if the gradient is NaN or infinite, or so large that the
            parameters could overflow; nothing has changed.
        """

    def step(self, feed, rows, lr, *, error=None, stop=False):
        """Update the parameters by one global batch; see `Strategy.step`."""
        # Queued first, so that on a GPU it is ready when the loss is.
        penalty = self.penalty(self._l2)
        weight, loss, stop = self._gradient(feed, rows, self.param_views, error, stop)
        loss += float(penalty)
        self._mark(j.UPDATE, self.count + 1)
        if weight > 0:  # class weights may be zero for all samples of a batch
            self._update(lr, weight)
        elif self._early:
            self._ask_who_failed()
        self.count += 1
        self._mark(j.BETWEEN, self.count)
        self.laps.lap("update")
        self.check_drift()
        return Outcome(weight, loss, stop)

    def evaluate(self, feed, rows, point, *, error=None, stop=False):
        """Leave the gradient sum at ``point`` in ``grads``: for L-BFGS.

        Parameters
        ----------
        point : ndarray, shape (layout.size,)
            In host memory.

        Returns
        -------
        Outcome
            With the loss without L2; of infinity where loss or gradient is not finite.

        Raises
        ------
        RemoteRankError
            As `step`.

        Notes
        -----
        Collective.
        """
        views = self.params_at(point)
        try:
            weight, loss, stop = self._gradient(feed, rows, views, error, stop)
        except DivergenceError:
            return Outcome(0.0, math.inf, False)
        if self._early and not math.isfinite(self.ops.square(self.grads)):
            self._ask_who_failed()
            self._forget_gradient()
            return Outcome(0.0, math.inf, False)
        return Outcome(weight, loss, stop)

    def params_at(self, point):
        """Return views of ``point``, a flat block in host memory, for the model."""
        return self.layout.views(point)

    def _gradient(self, feed, rows, params, error, stop):
        """Leave the gradient sum of a global batch, summed over ranks.

        Returns the batch's total weight and mean loss, without L2, and whether to stop.
        Collective.
        """
        # Not asked for again: a trial of overlap may change it when all is summed.
        self._error, self._early = error, self._exchanges_early
        n_batches = self._agree_batches(feed.count(rows))
        self._scaled_by = feed.scale = self._loss_scale
        weight, losses = self._compute(feed, rows, params, n_batches)
        feed.fetch_ahead()  # while a GPU computes what is queued
        loss = self._total_loss(losses)
        self.laps.lap("compute")
        self._hear_verdict()
        weight, loss, stop = self._control.exchange(
            weight, loss, float(stop), self._error, self._sent_with_control
        )
        self.laps.lap("communication")
        if not math.isfinite(loss):
            raise self._divergence(f"the loss became {loss}")
        if self._early:
            self._run_backward(params, n_batches - 1, n_batches)
            self.laps.lap("compute")
        self._combine_or_leave()
        return weight, loss / weight if weight > 0 else 0.0, stop > 0

    def _combine_or_leave(self, *args):
        """Call `combine`: an error there cannot be told the others. Collective."""
        self._mark(j.EXCHANGE, self.count + 1)
        try:
            self.combine(*args)
        except Exception as caught:
            leave(self.comm, caught)
        self.laps.lap("communication")

    def _agree_batches(self, n_batches):
        """Return how many micro batches this rank runs, given how many it has."""
        return n_batches

    def _compute(self, feed, rows, params, n_batches):
        """Run all micro batches, but not the last one's backward if ranks meet there.

        Returns this rank's weight and the losses of the micro batches, some still to
        come. An exception is kept: it travels in the control exchange.
        """
        weight, losses, step = 0.0, [], self.count + 1
        if self._error is not None:
            return weight, losses
        early = self._early
        self._mark(j.INPUT, step)
        try:
            for index, batch in enumerate(feed.batches(rows, n_batches)):
                self.laps.lap("input")
                self._mark(j.FORWARD, step)
                weight += feed.weight_of(batch)
                losses.append(self._model.loss(params, batch))
                last = index == n_batches - 1
                if not (last and early):
                    self._mark(j.BACKWARD, step)
                    self.backward(self._model, params, index, last)
                if not last:
                    self.laps.lap("compute")
                    self._mark(j.INPUT, step)
        except Exception as caught:
            self._error = caught
        return weight, losses

    def _run_backward(self, params, index, n_batches):
        """Run a backward in which ranks exchange; an exception is kept."""
        self._mark(j.BACKWARD, self.count + 1)
        try:
            self.backward(self._model, params, index, index == n_batches - 1)
        except Exception as caught:
            if is_of_mpi(caught):
                leave(self.comm, caught)
            self._error = caught
            self.fail()

    def fail(self):
        """Complete this step's exchanges with NaN after an error. Collective.

        Called where ``backward`` raised on this rank and the others go on.
        """

    def _total_loss(self, losses):
        """Return the sum of the losses; an exception is kept."""
        if self._error is not None:
            return 0.0
        self._mark(j.FORWARD, self.count + 1)
        try:
            return self._await_losses(losses) / self._scaled_by
        except Exception as caught:
            self._error = caught
            return 0.0

    def _hear_verdict(self):
        """Raise an error that the last update found on the device."""

    def _update(self, lr, weight):
        how = {"l2": self._l2, "clip_norm": self._clip_norm}
        try:
            self.update(lr=lr, weight=weight * self._scaled_by, **how)
        except DivergenceError as error:  # the same gradient, so on every rank
            if self._early:
                self._ask_who_failed()
            self._forget_gradient()
            raise self._divergence(str(error)) from error
        except Exception as caught:
            leave(self.comm, caught)

    def _ask_who_failed(self):
        """Raise the error of a rank that failed in this step. Collective."""
        try:
            raise_together(self.comm, self._error)
        except Exception:
            self._forget_gradient()
            raise
