"""Metrics of a model on data spread over ranks; every sample counts by its weight."""

import math
from itertools import chain

import numpy as np

from pympi_train.backends.environment import computing
from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.comm.sums.tree import own_leaves, total
from pympi_train.data.feeds.make import make_feed
from pympi_train.data.groups import own_cuts
from pympi_train.data.standardise import merge
from pympi_train.train.passes import each_batch


class Evaluator:
    r"""Returns the loss and the metrics of a model on a data set.

    The loss is the weighted mean, without L2. With the weights :math:`w_i` of the data
    set, 1 if it has none, and :math:`\bar y` the weighted mean, the metrics are

    * for classification, accuracy: the share of the weight of samples whose class is
      predicted correctly;
    * for regression, RMSE, :math:`\sqrt{\sum_i w_i (y_i - h_i)^2 / \sum_i w_i}`, and
      :math:`R^2 = 1 - \sum_i w_i (y_i - h_i)^2 / \sum_i w_i (y_i - \bar y)^2`, both
      averaged over targets;
    * for language, whose loss is that of a token, perplexity, :math:`e^{loss}`, and
      accuracy: the share of tokens that are the most probable ones.

    For a constant target, :math:`R^2` is 1 if every prediction is exact, else 0. A
    target is constant if its minimum equals its maximum. The computed sum of squares
    is no test: it may be 1e-30 on some numbers of ranks and 0 on others.

    RMSE is in the targets' own units if the data set knows them. With several
    targets, "targets" has RMSE and :math:`R^2` of each, by name.

    Parameters
    ----------
    model : Model
    dataset : Dataset
    comm : MPI.Comm
        The ranks that share the rows.
    micro_batch_size : int
        Maximum number of rows computed at once.
    ops : module
        A backend.
    dtype : dtype, optional
        The dtype the model computes in; by default that of the data set.
    pass_over : callable, optional
        ``pass_over(feed, rows, do, n_forwards)`` of a strategy whose ranks exchange
        parameters while the model computes.

    Notes
    -----
    Collective to make and to call.

    References
    ----------
    .. [1] The conventions are those of scikit-learn's ``accuracy_score``,
       ``root_mean_squared_error`` and ``r2_score``.
    """

    def __init__(
        self,
        model,
        dataset,
        comm,
        *,
        micro_batch_size,
        ops,
        dtype=None,
        pass_over=None,
    ):
        self._model, self._comm = model, comm
        self._pass_over = pass_over or each_batch(comm)
        self._n_here = len(dataset)
        self._units = dataset.units
        y_dtype = getattr(model, "y_dtype", None)
        self._ops = ops
        with together(comm):
            how = y_dtype, dtype, True  # without gradients
            self._feed = make_feed(dataset, micro_batch_size, ops, *how)
            self._feed.check(model)
        if model.task == "regression":
            y, weights = dataset.targets(), dataset.row_weights()
            self._spread = centred_squares(y, weights, comm, *self._parts())

    # As in training, without floating-point warnings: the metrics show inf and NaN.
    @computing()
    def __call__(self, params, is_cut=lambda: False):
        """Return the metrics as a dict of floats.

        Parameters
        ----------
        params : sequence of array
            Views.
        is_cut : callable
            Asked before each micro-batch whether this rank wants to end. Then all
            ranks return None.

        Notes
        -----
        Collective.
        """
        self._is_cut = is_cut
        regression = self._model.task == "regression"
        width = 4 + (self._model.n_outputs if regression else 0)
        n_cut, weight, loss, hits, *squares = self._totals(params, width).tolist()
        if n_cut:
            return None
        found = {"loss": loss / weight if weight else 0.0}
        if self._model.task == "language":
            found["perplexity"] = perplexity(found["loss"])
        if self._model.task in ("classification", "language"):
            found["accuracy"] = hits / (weight or 1.0)
        elif regression:
            spread = self._spread.tolist()
            found.update(errors_of(squares, weight or 1.0, spread, self._units))
        return found

    def _totals(self, params, width):
        """Return the sums over all ranks, shape (width,). Collective."""
        totals = np.zeros(width)

        def add(batch):
            self._add(totals, params, batch)

        n_forwards = 1 if self._model.task is None else 2  # loss and predict
        self._pass_over(self._feed, slice(0, self._n_here), add, n_forwards)
        return reduced(self._comm, totals)

    def _parts(self):
        """Return the last argument of `centred_squares`, if it is not the default."""
        return ()

    def _add(self, totals, params, batch):
        model = self._model
        if totals[0] or self._is_cut():
            totals[0] = 1
            return
        if model.task == "language":
            totals[3] += self._token_hits(params, batch)
        elif model.task is not None:  # before loss(): outputs share its workspace
            outputs = self._ops.numbers(model.predict(params, batch.x))
            y, weights = self._ops.to_host(batch.y), None
            if batch.weights is not None:
                weights = self._ops.to_host(batch.weights)
            if model.task == "classification":
                is_hit = model.decide(outputs) == y
                totals[3] += (
                    np.count_nonzero(is_hit)
                    if weights is None
                    else weights.sum(where=is_hit, dtype=np.float64)
                )
            else:
                squares = np.square(outputs - _columns(y), dtype=np.float64)
                if weights is not None:
                    squares *= weights[:, None]
                totals[4:] += squares.sum(axis=0)
        totals[1] += self._feed.weight_of(batch)
        totals[2] += float(model.loss(params, batch))

    def _token_hits(self, params, batch):
        """Return the sum, over windows, of the share of targets that are predicted."""
        outputs = self._ops.numbers(self._model.predict_each(params, batch.x))
        is_hit = self._model.decide(outputs) == self._ops.to_host(batch.y).reshape(-1)
        return np.count_nonzero(is_hit) / batch.y.shape[1]


class ExactEvaluator(Evaluator):
    """An `Evaluator` whose results are bit-identical at any number of ranks.

    It sums the rows of each group, and adds these sums in the order of the tree in
    `comm.sums.tree`.

    Parameters
    ----------
    model, comm, micro_batch_size, ops
        As for `Evaluator`.
    dataset : Dataset
        Its rows lie on the ranks that own their groups (`data.groups.regrouped`).
    n_groups : int
        Number of groups.
    """

    def __init__(self, model, dataset, comm, *, n_groups, **kwargs):
        cuts = own_cuts(dataset.n, n_groups, comm.rank, comm.size).tolist()
        self._groups = [slice(*cut) for cut in zip(cuts, cuts[1:])]
        self._first = own_leaves(comm.rank, comm.size, n_groups)[0]
        self._n_groups = n_groups
        super().__init__(model, dataset, comm, **kwargs)

    def _totals(self, params, width):
        slots = np.zeros((self._n_groups, width))
        with together(self._comm):
            for own, rows in zip(slots[self._first :], self._groups):
                for batch in self._feed.batches(rows):
                    self._add(own, params, batch)
        return total(reduced(self._comm, slots))

    def _parts(self):
        return (self._groups,)


def perplexity(loss):
    """Return the exponential of a mean loss of tokens; inf if it is too large."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def errors_of(squares, weight, spread, units):
    """Return RMSE and R2 of a regression, as `Evaluator` describes them.

    Parameters
    ----------
    squares, spread : list of float, length t
        Weighted sums of squares: of the errors, and of the targets about their mean.
    weight : float
        Sum of the weights, above 0.
    units : Units or None
    """
    scales = [1.0] * len(squares)
    if units is not None and units.scale is not None:
        scales = units.scale.tolist()
    roots = [s * (square / weight) ** 0.5 for s, square in zip(scales, squares)]
    scores = [_r2(*pair) for pair in zip(squares, spread)]
    found = {"rmse": sum(roots) / len(roots), "r2": sum(scores) / len(scores)}
    if units is not None and len(roots) > 1:
        found["targets"] = {
            name: {"rmse": root, "r2": score}
            for name, root, score in zip(units.names, roots, scores)
        }
    return found


def centred_squares(y, weights, comm, groups=(slice(None),)):
    """Return the sum of ``w (y - mean)^2`` of each target, shape (t,). Collective.

    The mean is weighted. The sum is over all ranks, and exactly zero for a target that
    is constant among the rows that count. Groups are merged in order, rank by rank. If
    the groups do not depend on the number of ranks, neither does the result.

    Parameters
    ----------
    y : ndarray, shape (k,) or (k, t)
        Targets of this rank's rows.
    weights : ndarray, shape (k,), or None
    comm : MPI.Comm
    groups : sequence of slice
    """
    y = np.asarray(_columns(y), dtype=np.float64)
    if weights is None:
        weights = np.ones(len(y))
    merged = (0, np.zeros(y.shape[1]), np.zeros(y.shape[1]))
    parts = []
    for part, w in ((y[rows], weights[rows, None]) for rows in groups):
        weight = float(w.sum(dtype=np.float64))
        if weight > 0:
            mean = (w * part).sum(axis=0) / weight
            parts.append((weight, mean, (w * np.square(part - mean)).sum(axis=0)))
    y = y[weights > 0]
    for part in chain.from_iterable(comm.allgather(parts)):
        merged = merge(merged, part)
    low = reduced(comm, y.min(axis=0, initial=np.inf), op="MIN")
    high = reduced(comm, y.max(axis=0, initial=-np.inf), op="MAX")
    return np.where(low == high, 0.0, merged[2])


def _columns(y):
    """Return targets of shape (k,) or (k, t) as (k, t)."""
    return y[:, None] if y.ndim == 1 else y


def _r2(error, spread):
    return 1 - error / spread if spread > 0 else float(error == 0)
