"""Rows spread over ranks."""

import numpy as np

from pympi_train.comm.checks import require_equal, together
from pympi_train.comm.mesh import resolve
from pympi_train.data.partition import own_range
from pympi_train.errors import DataError


class Dataset:
    """This rank's rows of a data set, and where they lie in the whole.

    Parameters
    ----------
    x : ndarray, shape (k, d)
        Features of this rank's rows. Ranks may hold different ``k``, also 0.
    y : ndarray, shape (k,) or (k, t)
        Targets: class indices, or numbers.
    weights : ndarray, shape (k,), optional
        Sample weights, in any unit; 1 each where left out, on every rank or none.
    comm : MPI.Comm, optional
        The ranks that share the rows; COMM_WORLD by default.

    Attributes
    ----------
    n : int
        Rows on all ranks together.
    start, stop : int
        This rank holds rows ``start`` to ``stop - 1`` of the whole.

    Raises
    ------
    DataError
        If ``x``, ``y`` and ``weights`` differ in length, a weight is negative or not
        finite, no weight is above 0, or there is no row.
    RankMismatchError
        If the ranks disagree on the number of features, or on having weights.

    Notes
    -----
    Collective: every rank makes its part at the same time. A rank that stays away
    leaves the others waiting.
    """

    def __init__(self, x, y, *, weights=None, comm=None):
        comm = resolve(comm)
        with together(comm):
            _require_same_length(x, y, weights)
            some_weight = weights is None or _any_weight(weights)
        require_equal(comm, "number of features", x.shape[1])
        require_equal(comm, "whether there are weights", weights is not None)
        counts, some_weights = zip(*comm.allgather((len(x), some_weight)))
        self.x, self.y, self.weights = x, y, weights
        self.n = sum(counts)
        self.start = sum(counts[: comm.rank])
        self.stop = self.start + len(x)
        with together(comm):
            if self.n == 0:
                raise DataError("a data set needs at least one row, got none")
            if not any(some_weights):
                raise DataError("a data set needs at least one weight above 0")

    @classmethod
    def split(cls, x, y, *, weights=None, comm=None):
        """Keep this rank's rows of arrays that every rank has whole. Collective."""
        comm = resolve(comm)
        own = slice(*own_range(len(x), comm.rank, comm.size))
        # A copy, so that the whole can be freed.
        parts = [None if a is None else np.array(a[own]) for a in (x, y, weights)]
        return cls(parts[0], parts[1], weights=parts[2], comm=comm)

    def __len__(self):
        return self.stop - self.start


def _require_same_length(x, y, weights):
    if x.ndim != 2:
        raise DataError(f"features must have shape (rows, columns), got {x.shape}")
    for name, array in (("targets", y), ("weights", weights)):
        if array is not None and len(array) != len(x):
            raise DataError(f"{len(x)} rows of features but {len(array)} of {name}")


def _any_weight(weights):
    """Whether a weight is above 0; raise DataError at one that makes no sense."""
    weights = np.asarray(weights)
    good = np.isfinite(weights) & (weights >= 0)
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(
            f"weights must be finite and not negative, got {weights[row]} in row {row} "
            "of this rank (from 0)"
        )
    return bool(weights.any())
