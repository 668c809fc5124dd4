"""Rows of rare classes repeated, so that each class has as many training rows."""

import numpy as np

from pympi_train.data import classes as labels
from pympi_train.data.order_statistics import select
from pympi_train.random import REPEAT, bits

CHUNK_ROWS = 1 << 18  # whose random words are made at once


def oversampled(train, classes, seed, comm):
    r"""Return a data set whose classes all have the rows of the largest. Collective.

    A row of a class of m rows comes :math:`\lfloor M / m \rfloor` times, where M is
    the size of the largest class, and some of its rows, chosen by ``seed``, once more.
    Copies of a row follow each other. The result does not depend on the ranks.

    Parameters
    ----------
    train : Dataset
        ``y`` are class indices.
    classes : ndarray, shape (c,)
    seed : int
    comm : MPI.Comm
    """
    y = train.y
    counts = labels.count_rows(y, classes, comm)
    times, n_more = np.divmod(counts.max(), np.maximum(counts, 1))

    def chunks():
        for start in range(0, len(y), CHUNK_ROWS):
            n_rows = min(CHUNK_ROWS, len(y) - start)
            words = bits(seed, REPEAT, 0, train.start + start, n_rows)
            yield words, y[start : start + n_rows]

    limits = select(chunks, n_more[:, None], comm)[:, 0]
    once_more = np.concatenate(
        [np.zeros(0, bool), *(words < limits[of] for words, of in chunks())]
    )
    once_more &= n_more[y] > 0
    rows = np.repeat(np.arange(len(y)), times[y] + once_more)
    return train.repeated(rows, comm)
