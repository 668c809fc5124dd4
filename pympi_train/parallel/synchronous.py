"""The training step of strategies whose ranks synchronise in each step."""

import abc
import math

from pympi_train.comm.checks import raise_together
from pympi_train.comm.control import Control
from pympi_train.comm.watch import journal as j
from pympi_train.errors import DivergenceError
from pympi_train.parallel.base import Outcome, Strategy, is_of_mpi, leave


class Synchronous(Strategy):
    """Forward and backward, control exchange, gradient exchange, update.

    The control exchange follows once a rank has computed all it can without the others.
    An error in forward or backward on any rank is thus known to all ranks before the
    first large message, and before any parameter changes. A small gradient is summed in
    the same call.

    If ranks exchange during forward or backward (``_exchanges_early``), a rank that
    fails completes the exchanges of the step, with NaN for gradients that it has not
    computed. All ranks then find NaN in the sum, and determine which rank failed.
    """

    _loss_scale = 1.0  # factor on loss and gradients of the next step
    _scaled_by = 1.0  # and of the current step
    _exchanges_early = False  # whether ranks exchange in forward or backward
    _sent_with_control = None  # a small gradient, to save a synchronisation

    def __init__(self, comm, layout, optimizer, ops):
        super().__init__(comm, layout, optimizer, ops)
        self._control = Control(comm)
        self._error = None  # of this rank, in this step
        self._early = False  # whether ranks exchange early in this step

    @abc.abstractmethod
    def backward(self, model, params, index, last):
        """Run ``model.gradient`` for micro-batch ``index``, which may be the last."""

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
            Total weight of the global batch, > 0: divisor of the gradient sum.
        l2 : float
            Factor of ``l2 / 2 |W|^2``.
        clip_norm : float, optional
            Maximum norm of the mean gradient.

        Raises
        ------
        DivergenceError
            On every rank, if the gradient is NaN or infinite, or so large that the
            parameters could overflow; nothing is changed then.
        """

    def step(self, feed, rows, lr, *, error=None, stop=False):
        """Update the parameters by one global batch; see `Strategy.step`."""
        if self.noise is not None:
            self.noise.begin()
        # Queued first, so that on a GPU it is ready when the loss is.
        penalty = self.penalty(self._l2)
        weight, loss, stop = self._gradient(feed, rows, self.param_views, error, stop)
        loss += float(penalty)
        self._mark(j.UPDATE, self.count + 1)
        if weight > 0:  # class weights may be zero for all samples of a batch
            self._update(lr, weight)
            self._note_step(weight)
        elif self._early:
            self._ask_who_failed()
        self.count += 1
        self.laps.lap("update")
        self.end_step()
        self.check_drift()
        return Outcome(weight, loss, stop)

    def evaluate(self, feed, rows, point, *, error=None, stop=False):
        """Write the gradient sum at ``point`` to ``grads``, for L-BFGS.

        Parameters
        ----------
        point : ndarray, shape (layout.size,)
            In host memory.

        Returns
        -------
        Outcome
            The loss is without the L2 term; infinite if it or the gradient is not
            finite.

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
        """Compute the gradient sum of a global batch, over all ranks. Collective.

        Returns the batch's total weight, its mean loss without the L2 term, and whether
        to stop.
        """
        # Read once: a trial of overlap may change it during ``combine``.
        self._error, self._early = error, self._exchanges_early
        n_batches = self._agree_batches(feed.count(rows))
        self._scaled_by = feed.scale = self._loss_scale
        weight, losses = self._compute(feed, rows, params, n_batches)
        feed.fetch_ahead()  # while a GPU runs the queued work
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
        """Call `combine`; abort the job if this rank alone fails in it. Collective."""
        self._mark(j.EXCHANGE, self.count + 1)
        try:
            self.combine(*args)
        except Exception as caught:
            leave(self.comm, caught)
        self.laps.lap("communication")

    def _agree_batches(self, n_batches):
        """Return the number of micro-batches to run, given that of this rank's rows."""
        return n_batches

    def _compute(self, feed, rows, params, n_batches):
        """Run all micro-batches, except the last backward if ranks exchange in it.

        Returns this rank's weight and the micro-batches' losses, which may be pending.
        An exception is stored for the control exchange.
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
                own = feed.weight_of(batch)
                weight += own
                if self.noise is not None:
                    self.noise.begin_batch(len(batch.x))
                losses.append(self._model.loss(params, batch))
                last = index == n_batches - 1
                if not (last and early):
                    self._mark(j.BACKWARD, step)
                    self.backward(self._model, params, index, last)
                if not last:
                    self.laps.lap("compute")
                    self._mark(j.INPUT, step)
            if self.noise is not None and not early:
                self._note_own()
        except Exception as caught:
            self._error = caught
        return weight, losses

    def _note_own(self):
        """Let ``noise`` see this rank's gradient, before it is summed over the ranks.
        """

    def _note_step(self, weight):
        """Let ``noise`` see the gradient sum of a step that was taken."""
        if self.noise is not None:
            self._end_noted_step(weight)
            self.noise.commit()

    def _end_noted_step(self, weight):
        how = {"scale": self._scaled_by, "is_counted": self.comm.rank == 0}
        self.noise.end_step(self.ops, self._own_sums(), weight, **how)

    def _own_sums(self):
        """Return a part of the gradient sum, as a list; all ranks' are the whole."""
        return []

    def _run_backward(self, params, index, n_batches):
        """Run a backward in which ranks exchange; store an exception."""
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

        Called if ``backward`` raised on this rank while the other ranks continue.
        """

    def _total_loss(self, losses):
        """Return the sum of the losses; store an exception."""
        if self._error is not None:
            return 0.0
        self._mark(j.FORWARD, self.count + 1)
        try:
            return self._await_losses(losses) / self._scaled_by
        except Exception as caught:
            self._error = caught
            return 0.0

    def _hear_verdict(self):
        """Raise the error that a GPU found in the last update, if any."""

    def _update(self, lr, weight):
        how = {"l2": self._l2, "clip_norm": self._clip_norm}
        try:
            self.update(lr=lr, weight=weight * self._scaled_by, **how)
        except DivergenceError as error:  # on every rank: the gradient is the same
            if self._early:
                self._ask_who_failed()
            self._forget_gradient()
            raise self._divergence(str(error)) from error
        except Exception as caught:
            leave(self.comm, caught)

    def _ask_who_failed(self):
        """Raise the error of a rank that failed in this step, if any. Collective."""
        try:
            raise_together(self.comm, self._error)
        except Exception:
            self._forget_gradient()
            raise
