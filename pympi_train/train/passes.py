"""A model on all of a rank's rows, batch by batch, without training."""

import numpy as np

from pympi_train.backends.environment import computing
from pympi_train.comm.checks import together
from pympi_train.data.feeds.make import make_feed


def each_batch(comm):
    """Return ``pass_over(feed, rows, do, n_forwards)`` for parameters that all have.

    As `Strategy.pass_over`, where there is no strategy.
    """

    def pass_over(feed, rows, do, n_forwards):
        with together(comm):
            for batch in feed.batches(rows):
                do(batch)

    return pass_over


def outputs(model, params, dataset, comm, *, max_rows, ops, dtype=None, pass_over):
    """Return what ``model`` predicts for this rank's rows, in host memory.

    Parameters
    ----------
    model : Model
    params : sequence of array
        Views of its parameters, where ``ops`` computes.
    dataset : Dataset
        Its targets are not looked at.
    comm : MPI.Comm
        The ranks that share the rows.
    max_rows : int
        Rows computed at once.
    ops : module
        A backend.
    dtype : dtype, optional
        That the model computes in, if not in that of the data set.
    pass_over : callable
        As for `metrics.Evaluator`.

    Returns
    -------
    ndarray, shape (k, n_outputs)
        float32 where the model computes in 2 bytes.

    Notes
    -----
    Collective.
    """
    found = []

    def keep(batch):
        found.append(np.array(ops.numbers(model.predict(params, batch.x))))

    with together(comm):
        feed = make_feed(dataset.features_only(), max_rows, ops, dtype=dtype)
    with computing():
        pass_over(feed, slice(0, len(dataset)), keep, 1)
    return np.concatenate(found)
