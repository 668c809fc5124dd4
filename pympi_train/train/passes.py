"""A model on all of a rank's rows, batch by batch, without training."""

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.comm.watch.abort import ending_the_job
from pympi_train.data.dataset import Dataset
from pympi_train.data.feeds import make_feed


def each_batch(comm, feed, n_rows, meets, do):
    """Call ``do(batch)`` for all batches of this rank's rows.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the rows.
    feed : Feed
    n_rows : int
        Of this rank.
    meets : bool
        The ranks meet while ``do`` computes: all run as many batches, some without
        rows, and an error of one ends the job.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    rows = slice(0, n_rows)
    n_batches, careful = feed.count(rows), together
    if meets:
        (most,) = reduced(comm, [n_batches], op="MAX")
        n_batches, careful = int(most), ending_the_job
    with careful(comm):
        for batch in feed.batches(rows, n_batches):
            do(batch)


def outputs(model, params, dataset, comm, *, most, ops, dtype=None, meets=False):
    """Return what ``model`` predicts for this rank's rows, in host memory.

    Parameters
    ----------
    model : Model
    params : sequence of array
        Views of its parameters, where ``ops`` computes.
    dataset : Dataset
        Its targets are not looked at.
    comm, meets
        As for `each_batch`.
    most : int
        Rows computed at once.
    ops : module
        A backend.
    dtype : dtype, optional
        That the model computes in, if not in that of the data set.

    Returns
    -------
    ndarray, shape (k, n_outputs)
        float32 where the model computes in 2 bytes.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    found = []

    def keep(batch):
        found.append(np.array(ops.numbers(model.predict(params, batch.x))))

    rows = Dataset(dataset.x, None, comm=comm)
    with together(comm):
        feed = make_feed(rows, most, ops, dtype=dtype)
    each_batch(comm, feed, len(rows), meets, keep)
    return np.concatenate(found)
