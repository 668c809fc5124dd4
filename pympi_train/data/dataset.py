"""Rows spread over ranks."""

import zlib

import numpy as np

from pympi_train.comm.checks import require_all_equal, require_equal, together
from pympi_train.comm.ranks import key_of, resolve
from pympi_train.data.partition import own_range
from pympi_train.errors import DataError

CHECKED_ROWS = 1000  # that a checksum looks at


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
    comm : Ranks or MPI.Comm, optional
        The ranks that share the rows; COMM_WORLD by default.

    Attributes
    ----------
    n : int
        Rows on all ranks together.
    start, stop : int
        This rank holds rows ``start`` to ``stop - 1`` of the whole.
    key : bytes
        Of the ranks that share the rows, see `comm.ranks.key_of`; ``n_ranks`` of them.

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
            some_weight = weights is None or require_weights(weights)
        require_equal(comm, "number of features", x.shape[1])
        require_equal(comm, "whether there are weights", weights is not None)
        counts, some_weights = zip(*comm.allgather((len(x), some_weight)))
        self.x, self.y, self.weights = x, y, weights
        self.n = sum(counts)
        self.start = sum(counts[: comm.rank])
        self.stop = self.start + len(x)
        self.key, self.n_ranks = key_of(comm), comm.size
        with together(comm):
            if self.n == 0:
                raise DataError("a data set needs at least one row, got none")
            if not any(some_weights):
                raise DataError("a data set needs at least one weight above 0")

    @classmethod
    def split(cls, x, y, *, weights=None, comm=None):
        """Keep this rank's rows of arrays that every rank has whole. Collective.

        Raises
        ------
        RankMismatchError
            On every rank, if the ranks have other arrays: other shapes or dtypes, or
            other numbers in a sample of the rows.
        """
        comm = resolve(comm)
        arrays = {"x": x, "y": y, "weights": weights}
        with together(comm):
            facts = {name: _facts(a) for name, a in arrays.items() if a is not None}
        hint = "Dataset.split takes the same arrays on every rank (seeds, files?)."
        require_equal(comm, "which arrays there are", sorted(facts), hint=hint)
        for what in ("shape and dtype", "sampled checksum"):
            found = {f"the {what} of {name}": f[what] for name, f in facts.items()}
            require_all_equal(comm, found, hint=hint)
        own = slice(*own_range(len(x), comm.rank, comm.size))
        # A copy, so that the whole can be freed.
        parts = [None if a is None else np.array(a[own]) for a in (x, y, weights)]
        return cls(parts[0], parts[1], weights=parts[2], comm=comm)

    def __len__(self):
        return self.stop - self.start


def _facts(array):
    """Return what has to be equal on ranks that hold the same array."""
    array = np.asarray(array)
    step = max(1, len(array) // CHECKED_ROWS) if array.ndim else 1
    sample = np.ascontiguousarray(array[::step] if array.ndim else array)
    text = sample.tobytes() if array.dtype != object else repr(sample.tolist()).encode()
    return {
        "shape and dtype": (array.shape, str(array.dtype)),
        "sampled checksum": zlib.crc32(text),
    }


def _require_same_length(x, y, weights):
    if x.ndim != 2:
        raise DataError(f"features must have shape (rows, columns), got {x.shape}")
    for name, array in (("targets", y), ("weights", weights)):
        if array is not None and len(array) != len(x):
            raise DataError(f"{len(x)} rows of features but {len(array)} of {name}")


def require_weights(weights):
    """Return whether a weight is above 0; raise DataError at one that is no weight."""
    weights = np.asarray(weights)
    good = np.isfinite(weights) & (weights >= 0)
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(
            f"weights must be finite and not negative, got {weights[row]} in row {row} "
            "of this rank (from 0)"
        )
    return bool(weights.any())
