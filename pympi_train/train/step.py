"""One training step: forward, control, backward, exchange, update."""

import math

from pympi_train.backends.memory import empty_block
from pympi_train.comm import abort
from pympi_train.comm.checks import agreed
from pympi_train.comm.control import Control
from pympi_train.errors import DivergenceError
from pympi_train.trace import Laps
from pympi_train.train.metrics import weight_of

ADVICE = "try a smaller [optimizer] learning_rate, or clip_norm"


class Step:
    """What happens to one global batch, on every rank at the same time.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the batch.
    model : Model
    strategy : Replicated
        Holds parameters and gradients, and combines them over ranks.
    l2 : float
        Factor of ``l2 / 2 |W|^2``.
    clip_norm : float or None
        Largest norm of the mean gradient.

    Attributes
    ----------
    count : int
        Updates done.
    laps : Laps
        Seconds by phase on this rank.
    """

    def __init__(self, comm, model, strategy, *, l2=0.0, clip_norm=None):
        self.count, self.laps = 0, Laps()
        self._comm, self._model, self._strategy = comm, model, strategy
        self._l2, self._clip_norm = l2, clip_norm
        self._control = Control(comm)
        self._scratch = self._scratch_views = None

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

        Notes
        -----
        Collective. A rank that stays away leaves the others waiting.
        """
        weight, loss = self.gradient(feed, rows, self._strategy.param_views)
        loss += self._strategy.penalty(self._l2)
        if weight > 0:  # class weights may be zero for all samples of a batch
            self._update(lr, weight)
        self.count += 1
        self.laps.lap("update")
        return weight, loss

    def gradient(self, feed, rows, params):
        """Leave the gradient sum of a global batch in the strategy's block.

        ``params`` are views of the point to take it at. Returns the batch's total
        weight and mean loss, without L2. Collective.
        """
        weight = loss = 0.0
        n_before, error = 0, None
        try:
            for batch, is_last in feed.batches(rows):
                self.laps.lap("input")
                weight += weight_of(batch)
                loss += self._model.loss(params, batch)
                if not is_last:
                    self._backward(params, n_before)
                    n_before += 1
        except Exception as caught:  # travels in the control exchange
            error = caught
        self.laps.lap("compute")
        weight, loss, _ = self._control.exchange(weight, loss, error=error)
        self.laps.lap("communication")
        if not math.isfinite(loss):
            raise self._divergence(f"the loss became {loss}")
        try:
            self._backward(params, n_before)
        except Exception as caught:  # the others are in the gradient exchange
            if self._comm.size > 1:
                abort.abort(self._comm, caught)
            raise
        self.laps.lap("compute")
        self._strategy.combine()
        self.laps.lap("communication")
        return weight, loss / weight if weight > 0 else 0.0

    def _backward(self, params, n_before):
        """Write the last batch's gradient sum, or add it to those before."""
        strategy = self._strategy
        if n_before == 0:
            self._model.gradient(params, strategy.grad_views)
            return
        if self._scratch is None:
            self._scratch = empty_block(self._model.layout)
            self._scratch_views = self._model.layout.views(self._scratch)
        self._model.gradient(params, self._scratch_views)
        strategy.grads += self._scratch

    def _update(self, lr, weight):
        try:
            self._strategy.update(
                lr=lr, weight=weight, l2=self._l2, clip_norm=self._clip_norm
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
