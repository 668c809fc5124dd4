"""The fold of each row, checks that folds can be used, and rows of one fold."""

import copy

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.comm.ranks import resolve
from pympi_train.errors import ConfigError, DataError


class Folds:
    """The fold of each of this rank's rows, and which of them each lane holds out.

    Parameters
    ----------
    numbers : ndarray of int32, shape (k,)
        -1 for a row of no fold.
    weights : ndarray, shape (k,), or None
        Of the rows.
    start : int
        Number of the first of these rows in the whole data set.
    held : ndarray of int32, shape (L,)
        The fold that each lane holds out; -2 for none.
    """

    def __init__(self, numbers, weights, start, held):
        self._numbers, self._weights, self._start = numbers, weights, start
        self._places, self._held = numbers + 2, held + 2  # as indices
        self._n = int(max(numbers.max(initial=-1), held.max(initial=-1))) + 3

    def of(self, batch):
        """Return the folds of a batch's rows, shape (k,)."""
        rows = batch.rows
        if isinstance(rows, slice):
            return self._numbers[rows.start - self._start : rows.stop - self._start]
        return self._numbers[rows - self._start]

    def weights(self, rows):
        """Return the total weight of local rows for each lane, shape (L,).

        ``rows`` is a slice or an array.
        """
        places = self._places[rows]
        if self._weights is None:
            by_fold = np.bincount(places, minlength=self._n)
            return len(places) - by_fold[self._held].astype(np.float64)
        each = self._weights[rows].astype(np.float64)
        by_fold = np.bincount(places, each, minlength=self._n)
        # The folds before and behind: a difference would lose small weights beside the
        # large ones of the fold, and its bits would depend on the number of folds.
        sums = np.zeros((2, len(by_fold) + 1))
        np.cumsum(by_fold, out=sums[0, 1:])
        np.cumsum(by_fold[::-1], out=sums[1, 1:])
        found = sums[0, self._held] + sums[1, len(by_fold) - 1 - self._held]
        return found


def own_folds(folds, data, lanes, comm):
    """Return the folds of this rank's rows as int32, checked. Collective.

    Raises
    ------
    ConfigError
        If lanes have folds and ``folds`` is missing or does not fit ``data``.
    DataError
        If a fold that a lane holds out has no row, or all of them; or the rows in it,
        or outside it, all have weight 0.
    """
    n_rows = len(data)
    with together(comm):
        if folds is None:
            numbers = np.full(n_rows, -1, np.int32)
        else:
            numbers = np.asarray(folds)
            if numbers.shape != (n_rows,) or numbers.dtype.kind not in "iu":
                raise ConfigError(
                    f"folds: expected an integer for each of the {n_rows} rows of this "
                    f"rank, got {numbers.dtype} of shape {numbers.shape}"
                )
            if numbers.min(initial=-1) < -1 or numbers.max(initial=0) >= 2**31 - 2:
                raise ConfigError("folds: expected numbers from 0, or -1 for no fold")
            numbers = numbers.astype(np.int32)
        if folds is None and any(lane.fold is not None for lane in lanes):
            raise ConfigError("lanes have folds, but the folds of the rows are missing")
    used = sorted({lane.fold for lane in lanes if lane.fold is not None})
    weights = data.row_weights()
    counts = _counts(numbers, used, comm)
    if weights is not None:
        weighty = _counts(numbers[weights > 0], used, comm)
    with together(comm):
        for place, fold in enumerate(used):
            if not 0 < counts[place] < counts[-1]:
                raise DataError(
                    f"fold {fold} has {counts[place]} of {data.n} rows: expected some, "
                    "and rows to train on; use fewer folds"
                )
            if weights is not None and weighty[place] in (0, weighty[-1]):
                where = "outside" if weighty[place] else "in"
                raise DataError(f"all rows {where} fold {fold} have weight 0")
    return numbers


def _counts(numbers, used, comm):
    """Return how many rows each of some folds has, and how many there are. Collective.
    """
    own = [np.count_nonzero(numbers == fold) for fold in used]
    return [int(count) for count in reduced(comm, [*own, len(numbers)])]


def rows_of_fold(data, folds, fold, comm=None):
    """Return training and validation rows of a fold, for a `Trainer`.

    The training rows are all rows, and those of the fold have weight 0: the batches are
    then those of the other folds, and of lanes. A Trainer on them gives what a lane
    gives.

    Parameters
    ----------
    data : Dataset
        In memory, or mapped.
    folds : ndarray of int, shape (len(data),)
        The fold of each of this rank's rows.
    fold : int
    comm : Ranks or MPI.Comm, optional

    Returns
    -------
    train, validation : Dataset

    Notes
    -----
    Collective.
    """
    comm = resolve(comm)
    with together(comm):
        if not hasattr(data, "repeated") or len(folds) != len(data):
            raise ConfigError(
                f"expected a Dataset and the fold of each of its {len(data)} rows, got "
                f"{type(data).__name__} and {len(folds)} folds"
            )
        is_out = np.asarray(folds) == fold
    validation = data.repeated(np.flatnonzero(is_out), comm)
    train, weights = copy.copy(data), data.weights
    if weights is None:
        weights = np.ones(len(data), data.kinds.x[1] if data.kinds.x else np.float64)
    train.weights = np.where(is_out, weights.dtype.type(0), weights)
    return train, validation
