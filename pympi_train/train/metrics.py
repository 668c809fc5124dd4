"""Metrics on data spread over ranks: every sample counts once."""

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.data.standardise import merge
from pympi_train.train.feed import Feed

HIGHER_IS_BETTER = {"accuracy", "r2"}


class Evaluator:
    r"""Loss and quality of a model on a data set.

    Reports the loss (weighted mean, without L2) and, by the model's task,

    * classification: accuracy, the share of samples whose class is hit, unweighted;
    * regression: RMSE, :math:`\sqrt{\sum_i (y_i - h_i)^2 / n}`, and
      :math:`R^2 = 1 - \sum_i (y_i - h_i)^2 / \sum_i (y_i - \bar y)^2`, both averaged
      over targets; a constant target's :math:`R^2` is 1 where it is hit exactly, else
      0. Constant means that minimum and maximum are equal: the computed sum of
      squares may be 1e-30 on some numbers of ranks and 0 on others.

    Parameters
    ----------
    model : Model
    dataset : Dataset
    comm : MPI.Comm
        The ranks that share the rows.
    micro_batch_size : int
        Most rows computed at once.
    ops : module
        A backend.

    Notes
    -----
    Collective to make and to call. A rank that stays away leaves the others waiting.

    References
    ----------
    .. [1] The conventions are those of scikit-learn's ``accuracy_score``,
       ``root_mean_squared_error`` and ``r2_score``.
    """

    def __init__(self, model, dataset, comm, *, micro_batch_size, ops):
        self._model, self._comm = model, comm
        self._n_here, self._n = len(dataset), dataset.n
        y_dtype = getattr(model, "y_dtype", None)
        with together(comm):
            self._feed = Feed(dataset, micro_batch_size, ops, y_dtype)
            self._feed.check(model)
        if model.task == "regression":
            self._spread = _centred_squares(dataset.y, comm)

    def __call__(self, params):
        """Return the metrics as a dict of floats; ``params`` are views. Collective."""
        regression = self._model.task == "regression"
        totals = np.zeros(3 + (self._model.n_outputs if regression else 0))
        with together(self._comm):
            for batch in self._feed.batches(slice(0, self._n_here)):
                self._add(totals, params, batch)
        weight, loss, hits, *squares = reduced(self._comm, totals).tolist()
        found = {"loss": loss / weight if weight else 0.0}
        if self._model.task == "classification":
            found["accuracy"] = hits / self._n
        elif regression:
            roots = [(square / self._n) ** 0.5 for square in squares]
            found["rmse"] = sum(roots) / len(roots)
            found["r2"] = _r2(squares, self._spread.tolist())
        return found

    def _add(self, totals, params, batch):
        model = self._model
        if model.task is not None:  # before loss(): outputs share its workspace
            outputs = model.predict(params, batch.x)
            if model.task == "classification":
                totals[2] += np.count_nonzero(model.decide(outputs) == batch.y)
            else:
                error = outputs - _columns(batch.y)
                totals[3:] += np.square(error, dtype=np.float64).sum(axis=0)
        totals[0] += weight_of(batch)
        totals[1] += model.loss(params, batch)


def weight_of(batch):
    """Return the total sample weight of ``batch``; its rows where none is given."""
    if batch.weights is None:
        return float(len(batch.x))
    return float(batch.weights.sum(dtype=np.float64))


def _centred_squares(y, comm):
    """Sum of ``(y - mean)^2`` by target over all ranks, shape (t,). Collective.

    Exactly zero for a constant target.
    """
    y = np.asarray(_columns(y), dtype=np.float64)
    nothing = np.zeros(y.shape[1])
    mine = total = (0, nothing, nothing)
    if len(y):
        mean = y.mean(axis=0)
        mine = (len(y), mean, np.square(y - mean).sum(axis=0))
    for part in comm.allgather(mine):
        total = merge(total, part)
    low = reduced(comm, y.min(axis=0, initial=np.inf), op="MIN")
    high = reduced(comm, y.max(axis=0, initial=-np.inf), op="MAX")
    return np.where(low == high, 0.0, total[2])


def _columns(y):
    """Return targets of shape (k,) or (k, t) as (k, t)."""
    return y[:, None] if y.ndim == 1 else y


def _r2(squares, spread):
    scores = [
        1 - error / total if total > 0 else float(error == 0)
        for error, total in zip(squares, spread)
    ]
    return sum(scores) / len(scores)
