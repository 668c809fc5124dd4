"""The rows of lanes on the ranks that compute them, and the group of lanes on them."""

from typing import Any, NamedTuple

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


class Computing(NamedTuple):
    """How rows are computed.

    Attributes
    ----------
    backend : Backend
    comm : MPI.Comm
    most : int
        Maximum number of rows computed at once.
    n_groups : int or None
        Number of groups of rows, in exact mode.
    """

    backend: Any
    comm: Any
    most: int
    n_groups: int | None


def make_group(model, lanes, rows, validation, scalings):
    """Return the LaneGroup of ``lanes`` on these rows. Collective.

    Parameters
    ----------
    model : Module
    lanes : sequence of Lane
    rows : LaneRows
    validation : Source or None
        Rows of lanes without a fold.
    scalings : list of Scaling or None
        As `LaneRows.scalings` returns them.
    """
    how, evaluators = rows.how, []
    if any(lane.fold is not None for lane in lanes):
        evaluators.append((_has_fold, rows.evaluator()))
    if validation is not None:
        others = LaneRows(model, validation, None, how)
        evaluators.append((_has_no_fold, others.evaluator()))
    return LaneGroup(
        model,
        lanes,
        rows.data,
        rows.numbers,
        rows.feed(rows_at_once(model, rows.data, len(lanes), how)),
        evaluators,
        scalings,
        how.backend,
        how.comm,
        how.n_groups,
    )


def _has_fold(lane):
    return lane.fold is not None


def _has_no_fold(lane):
    return lane.fold is None


class LaneRows:
    """Rows on the ranks that compute them, their folds, and their batches.

    Parameters
    ----------
    model : Module
    data : Source
    numbers : ndarray of int32, shape (len(data),), or None
        The fold of each of this rank's rows; None: they have no folds.
    how : Computing

    Attributes
    ----------
    data : Source
        In exact mode, each row is on the rank that owns its group.
    whole : Feed
        Batches of as many rows as allowed, for evaluation.
    """

    def __init__(self, model, data, numbers, how):
        self._model, self.how = model, how
        _, comm, most, n_groups = how
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
        backend, comm, _, n_groups = self.how
        made_of = self._model, self.data, self.numbers, self.whole
        return LaneEvaluator(*made_of, backend, comm, n_groups)

    def scalings(self, standardise, lanes, scale):
        """Return the Scaling of each fold that a lane has, or None. Collective."""
        if standardise is None or standardise is False:
            return None
        n_features, comm = self._model.n_features, self.how.comm
        with together(comm):
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
        made_of = self.data, self.numbers, self.whole, comm, self.how.n_groups
        return fold_scalings(folds, which, *made_of, scale)


def rows_at_once(model, data, n_lanes, how):
    """Return how many rows are run forward and backward before the next are read.

    Features and outputs then stay in cache: with 45 columns, the products of 4096 rows
    of 50 features take one and a half times as long as those of 256. Products with
    sparse rows write all columns each time, so their batches are large.
    """
    if data.is_sparse:
        return how.most
    width = n_lanes * model.n_outputs if how.n_groups is None else EXACT_WIDTH
    row_bytes = (model.n_features + 3 * width) * model.layout.dtype.itemsize
    return min(how.most, max(LEAST_ROWS, CACHE_BYTES // row_bytes))
