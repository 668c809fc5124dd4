"""One training step: forward, control, backward, exchange, update."""

import math

from pympi_train.comm.checks import agreed
from pympi_train.comm.control import Control
from pympi_train.comm.watch import abort
from pympi_train.comm.watch import journal as j
from pympi_train.comm.watch.drift import require_same
from pympi_train.comm.watch.guard import marker
from pympi_train.errors import DivergenceError

ADVICE = "try a smaller [optimizer] learning_rate, or clip_norm"


class Step:
    """What happens to one global batch, on every rank at the same time.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the batch.
    model : Model
    strategy : Strategy
        Holds parameters and gradients, and combines them over ranks.
    l2 : float
        Factor of ``l2 / 2 |W|^2``.
    clip_norm : float or None
        Largest norm of the mean gradient.
    check_every : int
        Steps between two comparisons of the ranks' parameters; 0: none.

    Attributes
    ----------
    count : int
        Updates done.
    strategy : Strategy
    laps : Laps
        Seconds by phase on this rank.
    """

    def __init__(
        self, comm, model, strategy, *, l2=0.0, clip_norm=None, check_every=0
    ):
        self.count, self.laps = 0, strategy.laps
        self._comm, self._model, self.strategy = comm, model, strategy
        self._l2, self._clip_norm = l2, clip_norm
        self._check_every, self._checked = check_every, 0
        self._control, self._mark = Control(comm), marker(comm)
        self._scale = 1.0  # of the loss and the gradients of a step

    def run(self, feed, rows, lr):
        """Update the parameters by one global batch.

        Parameters
        ----------
        feed : Feed
            Where this rank's rows come from.
        rows : slice or ndarray of intp
            This rank's share of the batch; may be empty.
        lr : float
            Learning rate.

        Returns
        -------
        weight, loss : float
            Total sample weight of the global batch, and its mean loss with the L2
            term, before the update.

        Raises
        ------
        DivergenceError
            On every rank, if loss or gradient is NaN or infinite; the parameters are
            unchanged.
        RemoteRankError
            If another rank failed before the control exchange.
        DriftError
            On every rank, if their parameters are no longer equal.

        Notes
        -----
        Collective. A rank that stays away leaves the others waiting.
        """
        # Before the rest: on a GPU it is there when the loss is.
        penalty = self.strategy.penalty(self._l2)
        weight, loss = self.gradient(feed, rows, self.strategy.param_views)
        loss += float(penalty)
        self._mark(j.UPDATE, self.count + 1)
        if weight > 0:  # class weights may be zero for all samples of a batch
            self._update(lr, weight)
        self.count += 1
        self._mark(j.BETWEEN, self.count)
        self.laps.lap("update")
        self.check_drift()
        return weight, loss

    @property
    def synchronous(self):
        """Whether ``run`` returns what all ranks did, not this one alone."""
        return self.strategy.synchronous

    def settle(self):
        """End an epoch: make the parameters equal on all ranks. Collective."""
        self._hear_verdict()
        self.strategy.settle()

    def gradient(self, feed, rows, params):
        """Leave the gradient sum of a global batch with the strategy.

        ``params`` are views of the point to take it at. Returns the batch's total
        weight and mean loss, without L2. Collective.
        """
        strategy, step = self.strategy, self.count + 1
        n_batches = strategy.agree_batches(feed.count(rows))
        self._scale = feed.scale = strategy.loss_scale
        weight, losses, error = self._forward(feed, rows, params, n_batches)
        if error is not None and strategy.meets_in_forward(n_batches):
            self._leave(error)
        early = strategy.queues_backward
        if early and error is None:
            error = self._backward(params, n_batches)
        feed.fetch_ahead()
        loss, error = self._await_losses(losses, error)
        self.laps.lap("compute")
        self._hear_verdict()
        weight, loss, _ = self._control.exchange(weight, loss, error=error)
        self.laps.lap("communication")
        if not math.isfinite(loss):
            raise self._divergence(f"the loss became {loss}")
        if not early:
            error = self._backward(params, n_batches)
            if error is not None:  # the others are in the gradient exchange
                self._leave(error)
        self.laps.lap("compute")
        self._mark(j.EXCHANGE, step)
        strategy.combine()
        self.laps.lap("communication")
        return weight, loss / weight if weight > 0 else 0.0

    def _backward(self, params, n_batches):
        """Run the last micro batch's backward; return what it raised, or None."""
        self._mark(j.BACKWARD, self.count + 1)
        try:
            self.strategy.backward(self._model, params, n_batches - 1, last=True)
        except Exception as caught:
            return caught
        return None

    def _await_losses(self, losses, error):
        """Return the sum of the losses, waiting for them, and what went wrong."""
        if error is not None:
            return 0.0, error
        self._mark(j.FORWARD, self.count + 1)
        try:
            # On a GPU this is where the host waits.
            return sum(map(float, losses)) / self._scale, None
        except Exception as caught:
            return 0.0, caught

    def _hear_verdict(self):
        """Raise what the last update found, if it is known only now."""
        try:
            self.strategy.verdict()
        except DivergenceError as error:  # the same on every rank
            self.count -= 1
            raise self._divergence(str(error)) from error

    def _forward(self, feed, rows, params, n_batches):
        """Run all micro batches but the last one's backward.

        Returns this rank's weight, the losses of the micro batches, some still to
        come, and the exception that ended it, if one did: it travels in the control
        exchange.
        """
        weight, losses, step = 0.0, [], self.count + 1
        self._mark(j.INPUT, step)
        try:
            for index, batch in enumerate(feed.batches(rows, n_batches)):
                self.laps.lap("input")
                self._mark(j.FORWARD, step)
                weight += feed.weight_of(batch)
                losses.append(self._model.loss(params, batch))
                if index < n_batches - 1:
                    self.strategy.backward(self._model, params, index, last=False)
                    self._mark(j.INPUT, step)
        except Exception as caught:
            return weight, losses, caught
        return weight, losses, None

    def check_drift(self):
        """Compare the ranks' parameters where it is time to. Collective."""
        every = self._check_every
        if not every or self.count // every == self._checked // every:
            return
        self._checked = self.count
        replicas = self.strategy.replicas()
        if replicas is not None:
            when = f"after step {self.count}"
            require_same(self._comm, self.strategy.layout, replicas, when)
        self.laps.lap("communication")

    def _leave(self, error):
        """End the job for ``error``: the others wait where it cannot be told them."""
        if self._comm.size > 1:
            abort.abort(self._comm, error)
        raise error

    def _update(self, lr, weight):
        try:
            self.strategy.update(
                lr=lr,
                weight=weight * self._scale,
                l2=self._l2,
                clip_norm=self._clip_norm,
            )
        except DivergenceError as error:  # the same gradient, so on every rank
            raise self._divergence(str(error)) from error

    def _divergence(self, what):
        return agreed(
            DivergenceError(
                f"{what} at step {self.count + 1}; the parameters are those before it: "
                f"{ADVICE}"
            )
        )
