"""Data sets in memory, with rows spread over ranks."""

import copy

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.backends.numpy.arrays import take_rows
from pympi_train.comm.checks import require_all_equal, require_equal, together
from pympi_train.comm.messages import numbers_of_ranks
from pympi_train.comm.ranks import key_of, resolve
from pympi_train.data.batch import Batch
from pympi_train.data.moving import moved
from pympi_train.data.partition import own_range
from pympi_train.data.sources.arrays import (
    facts_of,
    is_mapped,
    require_arrays,
    require_same_length,
    require_weights,
)
from pympi_train.data.sources.base import Source, n_rows
from pympi_train.data.values import require_finite
from pympi_train.data.windows.choice import resolve_order
from pympi_train.errors import ConfigError, DataError

TAKES_DENSE = (
    "this model takes dense rows, and the features are sparse: models of this package "
    "take both; [data] sparse = false, or pt.load(sparse=False), makes rows dense"
)


class Dataset(Source):
    """This rank's rows of a data set in memory, and their place in the whole.

    Parameters
    ----------
    x : ndarray, shape (k, d)
        Features of this rank's rows. ``k`` may differ between ranks, and may be 0.
    y : ndarray, shape (k,) or (k, t)
        Targets: class indices, or numbers.
    weights : ndarray, shape (k,), optional
        Sample weights, in any unit; by default all 1. Pass them on every rank or none.
    order : {"full", "window"} or WindowOrder, optional
        Order of the rows in an epoch, see `load`.
    comm : Ranks or MPI.Comm, optional
        The ranks that share the rows; COMM_WORLD by default.

    Attributes
    ----------
    n : int
        Rows on all ranks together.
    start, stop : int
        This rank holds rows ``start`` to ``stop - 1`` of the whole.
    key : bytes
        Identifies the ranks that share the rows, see `comm.ranks.key_of`.
    n_ranks : int
        Number of these ranks.

    Raises
    ------
    DataError
        If ``x``, ``y`` and ``weights`` differ in length, a feature or target is NaN or
        infinite, a weight is negative or not finite, no weight is above 0, or there is
        no row.
    RankMismatchError
        If ranks differ in the number of features, or only some have weights.

    Notes
    -----
    Collective.
    """

    def __init__(self, x, y, *, weights=None, order=None, comm=None):
        comm = resolve(comm)
        with together(comm):
            require_arrays(x, y, weights)
            require_same_length(x, y, weights)
            some_weight = weights is None or require_weights(weights)
        require_equal(comm, "number of features", x.shape[1])
        require_equal(comm, "whether there are weights", weights is not None)
        counts, some_weights = numbers_of_ranks(comm, len(x), some_weight).T
        self.x, self.y, self.weights = x, y, weights
        self.n = int(counts.sum())
        self.start = int(counts[: comm.rank].sum())
        self.stop = self.start + len(x)
        self.key, self.n_ranks = key_of(comm), comm.size
        with together(comm):
            for name, array in (("features", x), ("targets", y)):
                if isinstance(array, np.ndarray):
                    require_finite(array, name, self.start)
            if self.n == 0:
                raise DataError("a data set needs at least one row, got none")
            if not some_weights.any():
                raise DataError("a data set needs at least one weight above 0")
        if order is not None:
            with together(comm):
                self.order = resolve_order(order, self.n, self.row_bytes)
        require_equal(comm, "order of the rows", self.order)

    @classmethod
    def split(cls, x, y, *, weights=None, order=None, comm=None):
        """Return a data set of this rank's rows of arrays that all ranks have whole.

        Collective.

        Raises
        ------
        RankMismatchError
            On every rank, if the arrays differ between ranks in shape, in dtype, or in
            the values of a sample of the rows.
        """
        comm = resolve(comm)
        arrays = {"x": x, "y": y, "weights": weights}
        with together(comm):
            require_arrays(x, y, weights)
            facts = {name: facts_of(a) for name, a in arrays.items() if a is not None}
        hint = "Dataset.split takes the same arrays on every rank (seeds, files?)."
        require_equal(comm, "which arrays there are", sorted(facts), hint=hint)
        for what in ("shape and dtype", "sampled checksum"):
            found = {f"the {what} of {name}": f[what] for name, f in facts.items()}
            require_all_equal(comm, found, hint=hint)
        own = slice(*own_range(len(x), comm.rank, comm.size))
        # A copy, so that the whole can be freed.
        parts = [None if a is None else _copied(a[own]) for a in (x, y, weights)]
        return cls(parts[0], parts[1], weights=parts[2], order=order, comm=comm)

    def repeated(self, rows, comm):
        """Return a data set of some of this rank's rows. Collective.

        Parameters
        ----------
        rows : ndarray of intp
            Local row numbers, ascending, each as often as the row comes.
        comm : MPI.Comm
        """
        y, weights = (None if a is None else a[rows] for a in (self.y, self.weights))
        other = type(self)(
            self._repeated_features(rows), y, weights=weights, comm=comm
        )
        other.units = self.units
        return other

    def _repeated_features(self, rows):
        return self.x[rows]

    @property
    def where(self):
        """Where features are: "in memory", or another place."""
        return "in memory"

    @property
    def can_move(self):
        """Whether the features are in memory; see `Source`."""
        return not is_mapped(self.x)

    @property
    def block_rows(self):
        """Rows that are decoded together: 1 in memory."""
        return 1

    def reserve(self, order):
        """Do nothing: all rows are in memory."""

    @property
    def is_plain(self):
        """Whether all arrays are in C order."""
        arrays = (self.x, self.y, self.weights)
        return all(
            a is None or (isinstance(a, np.ndarray) and a.flags.c_contiguous)
            for a in arrays
        )

    @property
    def kinds(self):
        """A Batch of (shape of a row, dtype), with None for absent fields."""
        arrays = (self.x, self.y, self.weights)
        return Batch(*(None if a is None else (a.shape[1:], a.dtype) for a in arrays))

    def batch(self, rows, out=None):
        """Return some of this rank's rows; see `Source.batch`."""
        x, y, weights = self.x, self.y, self.weights
        if isinstance(rows, slice) and out is None:
            return Batch(  # no loop: it would be noticeable in small steps
                x[rows],
                None if y is None else y[rows],
                None if weights is None else weights[rows],
                self.numbers(rows),
            )
        k = n_rows(rows)
        taken = self.room(k) if out is None else out
        taken = [None if memory is None else memory[:k] for memory in taken[:3]]
        for array, memory in zip((x, y, weights), taken):
            if memory is not None:
                _take(array, rows, memory)
        return Batch(*taken, self.numbers(rows))

    def weight_of(self, rows):
        """Return the total weight of some rows."""
        if self.weights is None:
            return float(n_rows(rows))
        return float(self.weights[rows].sum(dtype=np.float64))

    def targets(self):
        """Return the targets of this rank's rows."""
        return self.y

    def row_weights(self):
        """Return the weights of this rank's rows, or None."""
        return self.weights

    def check(self, model):
        """Let ``model`` check all rows once; see `Source.check`."""
        if self.is_sparse and not getattr(model, "takes_sparse", False):
            raise ConfigError(TAKES_DENSE)
        if hasattr(model, "check"):
            whole = slice(0, len(self))
            model.check(Batch(self.x, self.y, self.weights, self.numbers(whole)))

    def with_targets(self, dtype):
        """Return the same rows with targets of ``dtype``; see `Source.with_targets`."""
        other = copy.copy(self)
        if self.y is not None:
            other.y = _converted(self.y, np.dtype(dtype))
        return other

    def features_only(self):
        """Return the same rows without targets and weights."""
        other = copy.copy(self)
        other.y = other.weights = None
        return other

    def moved(self, old, new, comm):
        """Return a data set with its rows moved between ranks. Collective."""
        y, weights = (
            None if a is None else moved(a, old, new, comm)
            for a in (self.y, self.weights)
        )
        x = self._moved_features(old, new, comm)
        other = type(self)(x, y, weights=weights, order=self.order, comm=comm)
        other.units = self.units
        return other

    def _moved_features(self, old, new, comm):
        return moved(self.x, old, new, comm)


def _take(array, rows, out):
    """Store ``array[rows]`` in ``out``, without a temporary."""
    if isinstance(rows, slice):
        out[...] = array[rows]
    elif hasattr(array, "take_into"):
        array.take_into(rows, out)
    else:
        take_rows(array, rows, out)


def _converted(y, dtype):
    # NaN becomes some integer, and large numbers infinite: both are caught below.
    with np.errstate(invalid="ignore", over="ignore"):
        converted = np.ascontiguousarray(y, dtype=dtype)
    if dtype.kind == "f" and not np.isfinite(converted).all():
        row = int(np.argmin(np.isfinite(converted).reshape(len(y), -1).all(axis=1)))
        raise DataError(
            f"targets: too large for {dtype} in row {row} of this rank (from 0); "
            "divide them by their size, or make the model with dtype float64"
        )
    if dtype.kind == "i" and y.dtype.kind == "f" and not (converted == y).all():
        row = int(np.flatnonzero(converted != y)[0])
        raise ValueError(
            f"y: expected class indices, got {y[row]} in row {row} of this rank"
        )
    return converted


def _copied(rows):
    if not isinstance(rows, CSR):
        return np.array(rows)
    x = rows.compact()
    return CSR(x.starts, x.stops, x.indices.copy(), x.values.copy(), x.shape[1])
