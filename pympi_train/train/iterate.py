"""L-BFGS in place of steps: it owns the point and asks for cost and gradient."""

import numpy as np

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
    """
    strategy, rows = step.strategy, slice(0, len(train))

    def evaluate(point, grad):
        try:
            weight, loss = step.gradient(feed, rows, strategy.layout.views(point))
        except DivergenceError:  # the line search tries a shorter step
            return float("inf")
        scale = 1.0 / weight if weight > 0 else 0.0
        np.multiply(strategy.grads, scale, out=grad)
        return loss + strategy.add_penalty(trainer.l2, point, grad)

    def callback(iteration, f, gradient_norm, n_evaluations):
        step.count += 1
        step.check_drift()
        stop = finish(f)
        start()
        return stop

    start()
    try:
        found = trainer.optimizer.minimise(
            evaluate,
            strategy.params,
            max_iterations=epochs,
            agree=lambda *values: collectives.from_rank_0(strategy.comm, *values),
            callback=callback,
        )
    except DivergenceError as error:  # at the start: the same on every rank
        raise agreed(error)
    if found.iterations == 0:  # the start is the minimum, and is measured
        finish(found.f)
    names = {"callback": "patience", "iterations": "epochs"}
    return names.get(found.reason, found.reason)
