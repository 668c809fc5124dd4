"""L-BFGS in place of steps: it owns the point and asks for cost and gradient."""

import numpy as np

from pympi_train.comm import collectives
from pympi_train.comm.checks import agreed
from pympi_train.errors import DivergenceError


def iterate(optimizer, strategy, step, feed, n_rows, *, iterations, l2, finish):
    """Minimise over all rows; an iteration may evaluate the gradient more than once.

    Parameters
    ----------
    optimizer : LBFGS
    strategy : Allreduce
        Its parameters move.
    step : Step
    feed : Feed
    n_rows : int
        Of this rank.
    iterations : int
        Most of them.
    l2 : float
        Factor of ``l2 / 2 |W|^2``.
    finish : callable
        ``finish(loss)`` after each iteration; returns whether to stop.

    Returns
    -------
    str
        Why it ended.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    layout = strategy.layout

    def evaluate(point, grad):
        try:
            weight, loss = step.gradient(feed, slice(0, n_rows), layout.views(point))
        except DivergenceError:  # the line search tries a shorter step
            return float("inf")
        scale = 1.0 / weight if weight > 0 else 0.0
        np.multiply(strategy.grads, scale, out=grad)
        return loss + strategy.add_penalty(l2, point, grad)

    def callback(iteration, f, gradient_norm, n_evaluations):
        step.count += 1
        step.check_drift()
        return finish(f)

    try:
        found = optimizer.minimise(
            evaluate,
            strategy.params,
            max_iterations=iterations,
            agree=lambda *values: collectives.from_rank_0(strategy.comm, *values),
            callback=callback,
        )
    except DivergenceError as error:  # at the start: the same on every rank
        raise agreed(error)
    if found.iterations == 0:  # the start is the minimum, and is measured
        finish(found.f)
    names = {"callback": "patience", "iterations": "epochs"}
    return names.get(found.reason, found.reason)
