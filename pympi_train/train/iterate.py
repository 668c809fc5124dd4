"""Training by L-BFGS, which asks for loss and gradient at points of its choice."""

import numpy as np

from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.comm import collectives
from pympi_train.comm.checks import agreed_within
from pympi_train.errors import DivergenceError

ENDINGS = {"iterations": "epochs"}


def iterate(fit, epochs):
    """Minimise the loss over all rows by L-BFGS; return why it ended.

    One iteration may evaluate the gradient several times.

    Parameters
    ----------
    fit : Fit
        Its strategy has all parameters on every rank; they are changed in place.
    epochs : int
        Maximum number of iterations.

    Returns
    -------
    str
        Why it ended.

    Notes
    -----
    Collective.

    The vectors of L-BFGS are in host memory, even if a GPU computes the gradients.
    """
    trainer, strategy = fit.trainer, fit.strategy
    l2, lap = trainer.l2, strategy.laps.lap
    point = strategy.whole()  # on the CPU the parameters themselves
    stops, over = [], []  # whether to stop, and why the training is over

    def evaluate(point, grad):
        lap("update")  # the direction, and the step along it
        weight, loss, stop = strategy.evaluate(
            fit.feed, slice(0, len(fit.train)), point, stop=trainer.stopping
        )
        stops.append(stop)
        if not np.isfinite(loss):  # the line search tries a shorter step
            return loss
        scale = 1.0 / weight if weight > 0 else 0.0
        np.multiply(strategy.ops.to_host(strategy.grads), scale, out=grad)
        return loss + add_penalty(strategy.layout, l2, point, grad)

    def agree(*values):
        lap("update")
        agreed = collectives.from_rank_0(strategy.comm, *values)
        lap("communication")
        return agreed

    def callback(iteration, f, gradient_norm, n_evaluations):
        strategy.params_at(point)
        lap("update")
        strategy.count += 1
        strategy.end_step()
        strategy.check_drift()
        fit.measure()
        over.append(fit.end_epoch(f, largest_gradient=gradient_norm))
        fit.begin_epoch()
        stops.append(fit.is_told_to_stop())
        return bool(over[-1]) or (any(stops) and len(over) < epochs)

    fit.begin_epoch()
    try:
        found = trainer.optimizer.minimise(
            evaluate,
            point,
            max_iterations=epochs,
            agree=agree,
            callback=callback,
            go_on=True,
        )
    except DivergenceError as error:  # at the starting point: equal on every rank
        raise agreed_within(strategy.comm, error)
    strategy.params_at(point)
    if found.iterations == 0:  # the start is the minimum: record it as an epoch
        fit.end_epoch(found.f, largest_gradient=found.gradient_norm)
    if found.reason == "callback":
        return over[-1] or "stop"
    return ENDINGS.get(found.reason, found.reason)


def add_penalty(layout, l2, point, grad):
    """Return ``l2 / 2 |W|^2`` at ``point``, and add ``l2 W`` to ``grad``."""
    if l2 == 0:
        return 0.0
    runs = layout.runs()
    for part, is_weight in runs:
        if is_weight:
            w = point[part]
            grad[part] += w * w.dtype.type(l2)
    return 0.5 * l2 * numpy_ops.weights_square(point, runs)
