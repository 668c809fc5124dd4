"""Runs a model over all rows of a rank, batch by batch, without training."""

import numpy as np

from pympi_train.backends.environment import computing
from pympi_train.comm.checks import together
from pympi_train.data.feeds.make import make_feed


def each_batch(comm):
    """Return ``pass_over(feed, rows, do, n_forwards)`` for replicated parameters.

    It replaces `Strategy.pass_over` where there is no strategy.
    """

    def pass_over(feed, rows, do, n_forwards):
        with together(comm):
            for batch in feed.batches(rows):
                do(batch)

    return pass_over


def outputs(model, params, dataset, comm, *, max_rows, ops, dtype=None, pass_over):
    """Return the predictions of ``model`` for this rank's rows, in host memory.

    Parameters
    ----------
    model : Model
    params : sequence of array
        Views of its parameters, in the memory in which ``ops`` computes.
    dataset : Dataset
        Its targets are ignored.
    comm : MPI.Comm
        The ranks that share the rows.
    max_rows : int
        Maximum number of rows computed at once.
    ops : module
        A backend.
    dtype : dtype, optional
        The dtype the model computes in; by default that of the data set.
    pass_over : callable
        As for `metrics.Evaluator`.

    Returns
    -------
    ndarray, shape (k, n_outputs)
        float32 if the model computes in a 2-byte dtype.

    Notes
    -----
    Collective.
    """
    found = []

    def keep(batch):
        found.append(np.array(ops.numbers(model.predict(params, batch.x))))

    with together(comm):
        feed = make_feed(
            dataset.features_only(), max_rows, ops, dtype=dtype, forward_only=True
        )
    with computing():
        pass_over(feed, slice(0, len(dataset)), keep, 1)
    return np.concatenate(found)
