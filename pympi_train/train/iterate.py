"""L-BFGS in place of steps: it owns the point and asks for cost and gradient."""

import numpy as np

from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.comm import collectives
from pympi_train.comm.checks import agreed
from pympi_train.errors import DivergenceError


def iterate(trainer, step, feed, train, *, epochs, start, finish):
    """Minimise over all rows; an iteration may evaluate the gradient more than once.

    Parameters
    ----------
    trainer : Trainer
        Gives the optimizer and ``l2``.
    step : Step
        Of strategy allreduce, whose parameters move.
    feed : Feed
    train : Dataset
    epochs : int
        Most iterations.
    start : callable
        ``start()`` when an iteration begins.
    finish : callable
        ``finish(loss)`` after each; returns whether to stop.

    Returns
    -------
    str
        Why it ended.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    The vectors of the method lie in host memory, also where gradients come from a GPU.
    """
    strategy, rows = step.strategy, slice(0, len(train))
    point = strategy.whole()  # on the CPU the parameters themselves

    def evaluate(point, grad):
        try:
            weight, loss = step.gradient(feed, rows, strategy.at(point))
        except DivergenceError:  # the line search tries a shorter step
            return float("inf")
        scale = 1.0 / weight if weight > 0 else 0.0
        np.multiply(strategy.ops.to_host(strategy.grads), scale, out=grad)
        return loss + add_penalty(strategy.layout, trainer.l2, point, grad)

    def callback(iteration, f, gradient_norm, n_evaluations):
        strategy.at(point)
        step.count += 1
        step.check_drift()
        stop = finish(f)
        start()
        return stop

    start()
    try:
        found = trainer.optimizer.minimise(
            evaluate,
            point,
            max_iterations=epochs,
            agree=lambda *values: collectives.from_rank_0(strategy.comm, *values),
            callback=callback,
        )
    except DivergenceError as error:  # at the start: the same on every rank
        raise agreed(error)
    strategy.at(point)
    if found.iterations == 0:  # the start is the minimum, and is measured
        finish(found.f)
    names = {"callback": "patience", "iterations": "epochs"}
    return names.get(found.reason, found.reason)


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
