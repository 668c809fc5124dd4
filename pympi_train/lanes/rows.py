"""The rows of lanes on the ranks that compute them, and the group of lanes on them."""

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.messages import numbers_of_ranks
from pympi_train.data.feeds.feed import Feed
from pympi_train.data.feeds.group_feed import GroupFeed
from pympi_train.data.groups import own_cuts, regrouped
from pympi_train.data.moving import moved
from pympi_train.errors import ConfigError
from pympi_train.lanes.columns import EXACT_WIDTH
from pympi_train.lanes.evaluate import LaneEvaluator
from pympi_train.lanes.group import LaneGroup
from pympi_train.lanes.rescaling import fold_scalings

CACHE_BYTES = 2**19  # of features and outputs that are used twice
LEAST_ROWS = 256  # at once: fewer make the products slow


def make_group(
    model,
    lanes,
    data,
    numbers,
    validation,
    standardise,
    scale,
    backend,
    comm,
    most,
    n_groups,
):
    """Return the LaneGroup of ``lanes`` on these rows. Collective.

    Parameters
    ----------
    model, lanes, data, validation, standardise, scale
        As for `train_lanes`.
    numbers : ndarray of int32, shape (len(data),)
        The fold of each of this rank's rows.
    backend : Backend
    comm : MPI.Comm
    most : int
        Maximum number of rows computed at once.
    n_groups : int or None
        Number of groups of rows, in exact mode.
    """
    how = backend, comm, most, n_groups
    rows, evaluators = LaneRows(model, data, numbers, *how), []
    if any(lane.fold is not None for lane in lanes):
        evaluators.append((_has_fold, rows.evaluator()))
    if validation is not None:
        others = LaneRows(model, validation, None, *how)
        evaluators.append((_has_no_fold, others.evaluator()))
    return LaneGroup(
        model,
        lanes,
        rows.data,
        rows.numbers,
        rows.feed(rows_at_once(model, data, len(lanes), most, n_groups is not None)),
        evaluators,
        rows.scalings(standardise, lanes, scale),
        backend,
        comm,
        n_groups,
    )


def _has_fold(lane):
    return lane.fold is not None


def _has_no_fold(lane):
    return lane.fold is None


class LaneRows:
    """Rows on the ranks that compute them, their folds, and their batches.

    Parameters
    ----------
    model, data, numbers, backend, comm, most, n_groups
        As for `make_group`; without ``numbers``, rows have no folds.

    Attributes
    ----------
    data : Source
        In exact mode, each row is on the rank that owns its group.
    whole : Feed
        Batches of as many rows as allowed, for evaluation.
    """

    def __init__(self, model, data, numbers, backend, comm, most, n_groups):
        self._model, self._comm, self._n_groups = model, comm, n_groups
        self._backend = backend
        self.data, self.numbers, self._cuts = data, numbers, None
        if n_groups is not None:
            self.data = regrouped(data, n_groups, comm)
            self._cuts = own_cuts(self.data.n, n_groups, comm.rank, comm.size)
            if numbers is not None and self.data is not data:
                sources = data, self.data
                old, new = (
                    [*numbers_of_ranks(comm, s.start).tolist(), s.n] for s in sources
                )
                self.numbers = moved(numbers, old, new, comm)
        with together(comm):
            self.whole = self.feed(most)
            self.whole.check(model)

    def feed(self, most):
        """Return a Feed of batches of at most ``most`` rows."""
        if self._cuts is None:
            return Feed(self.data, most, self._model.y_dtype)
        return GroupFeed(self.data, self._cuts, most, self._model.y_dtype)

    def evaluator(self):
        """Return the LaneEvaluator of these rows. Collective."""
        made_of = self._model, self.data, self.numbers, self.whole, self._backend
        return LaneEvaluator(*made_of, self._comm, self._n_groups)

    def scalings(self, standardise, lanes, scale):
        """Return the Scaling of each fold that a lane has, or None. Collective."""
        if standardise is None or standardise is False:
            return None
        n_features = self._model.n_features
        with together(self._comm):
            which = standardise
            if standardise is True:
                which = np.ones(n_features, bool)
            which = np.asarray(which)
            if which.shape != (n_features,) or which.dtype != bool:
                raise ConfigError(
                    f"standardise: expected True or a bool for each of {n_features} "
                    f"columns, got {standardise!r}"
                )
        folds = list(dict.fromkeys(lane.fold for lane in lanes))
        made_of = self.data, self.numbers, self.whole, self._comm, self._n_groups
        return fold_scalings(folds, which, *made_of, scale)


def rows_at_once(model, data, n_lanes, most, is_exact):
    """Return how many rows are run forward and backward before the next are read.

    Features and outputs then stay in cache: with 45 columns, the products of 4096 rows
    of 50 features take one and a half times as long as those of 256. Products with
    sparse rows write all columns each time, so their batches are large.
    """
    if data.is_sparse:
        return most
    width = EXACT_WIDTH if is_exact else n_lanes * model.n_outputs
    row_bytes = (model.n_features + 3 * width) * model.layout.dtype.itemsize
    return min(most, max(LEAST_ROWS, CACHE_BYTES // row_bytes))
