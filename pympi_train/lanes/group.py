"""The lanes that are still trained, their parameters, and what became of others."""

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.lanes.columns import LaneColumns
from pympi_train.lanes.folds import Folds
from pympi_train.lanes.lane import DIVERGED, LaneResult
from pympi_train.lanes.products import Products
from pympi_train.lanes.rescaling import Rescaling
from pympi_train.lanes.sums import ExactLaneSums, LaneSums
from pympi_train.lanes.updates import Updates
from pympi_train.optim.lbfgs import LBFGS


class LaneGroup:
    """The parameters of the lanes in training, and the sums over ranks that they need.

    Parameters
    ----------
    model : Linear, Logistic or Softmax
    lanes : sequence of Lane
    data : Source
        Placed: in exact mode, each row is on the rank that owns its group.
    numbers : ndarray of int32, shape (len(data),)
        The fold of each of this rank's rows.
    feed : Feed
        Of ``data``.
    evaluators : list of (callable, LaneEvaluator)
        Which lanes are validated by which evaluator.
    scalings : dict of fold to Scaling, or None
    backend : Backend
    comm : MPI.Comm
    n_groups : int or None
        Of rows, in exact mode.

    Attributes
    ----------
    results : list of LaneResult
        Of all lanes.
    live : list of int
        The places in ``results`` of the lanes in training.
    lanes : list of Lane
        These lanes.
    params, grads : ndarray, shape (n_blocks, d + 1, width)

    Notes
    -----
    Collective to make, and so is every method.
    """

    def __init__(
        self,
        model,
        lanes,
        data,
        numbers,
        feed,
        evaluators,
        scalings,
        backend,
        comm,
        n_groups,
    ):
        self.model, self.data, self.comm, self.backend = model, data, comm, backend
        self._numbers, self._feed, self._evaluators = numbers, feed, evaluators
        self._scalings, self._n_groups = scalings, n_groups
        self.results = [LaneResult(lane) for lane in lanes]
        if scalings is not None:
            for result in self.results:
                result.scaling = scalings[result.lane.fold]
        self._has_intercept = len(model.layout.tensors) > 1
        self._sums = self._rescaling = None
        self._set_live(list(range(len(lanes))))

    def _set_live(self, live):
        """Make room for these lanes, with parameters of zero."""
        self.live, self.lanes = live, [self.results[i].lane for i in live]
        self.free()
        if not live:
            return
        made_of = len(live), self.model.n_outputs, self._n_groups is not None
        self.columns = LaneColumns(*made_of)
        held = np.array([lane.held for lane in self.lanes], np.int32)
        has_offset = self._has_intercept or self._scalings is not None
        self.products = Products(
            self.model, self.columns, held, self.backend, has_offset
        )
        weights = self.data.row_weights()
        folds = Folds(self._numbers, weights, self.data.start, held)
        made_of = self.comm, self.products, folds, self.backend.ops
        if self._n_groups is None:
            self._sums = LaneSums(*made_of)
        else:
            self._sums = ExactLaneSums(*made_of, self._n_groups)
        self.params, self.grads = self._sums.params, self._sums.grads
        if self._scalings is not None:
            scalings = [self.results[i].scaling for i in live]
            self._rescaling = self._rescaled(scalings, self.columns)

    def free(self):
        """Free the resources of the exchange."""
        if self._sums is not None:
            self._sums.free()
            self._sums = None

    def gradient(self, rows, error=None, stop=False):
        """Write the gradient sums of a batch to ``grads``; see `LaneSums.gradient`."""
        params = self._effective()
        found = self._sums.gradient(self._feed, rows, params, error, stop)
        if self._rescaling is not None:
            self._rescaling.pull_back(self.grads)
        return found

    def check_drift(self, when):
        """Raise DriftError unless all ranks have the same parameters."""
        self._sums.check_drift(when)

    def rehearse(self, optimizer):
        """Compile what a step calls, on rank 0 first: the others load the result."""
        for turn in (True, False):
            with together(self.comm):
                if (self.comm.rank == 0) is turn:
                    batch = next(self._feed.batches(slice(0, 0)))
                    self.products.rehearse(batch)
                    if not isinstance(optimizer, LBFGS):
                        Updates(optimizer, self.lanes, self.products).rehearse()

    def _effective(self):
        if self._rescaling is None:
            return self.params
        return self._rescaling.effective(self.params)

    def end(self, places, status):
        """End the training of some lanes, numbered as ``results``."""
        if not places:
            return
        arrays = self.columns.unpack(self.params)
        for place, array in zip(self.live, arrays):
            if place in places:
                self.results[place].status = status
                self.results[place].weights = self._named(array)
        kept = [i for i, place in enumerate(self.live) if place not in places]
        self._set_live([self.live[i] for i in kept])
        if kept:
            self.columns.pack(arrays[kept], out=self.params)

    def _named(self, array):
        """Return parameters (d + 1, c) by name, with the model's shapes."""
        parts = array[:-1].copy(), array[-1].copy()
        return dict(zip((t.name for t in self.model.layout.tensors), parts))

    def validate(self, places=None):
        """Add the metrics of validation rows to the last record of some lanes.

        By default of the lanes in training; lanes that diverged have none.
        """
        if places is None:
            places, arrays = self.live, self.columns.unpack(self.params)
        else:
            places = [p for p in places if self.results[p].status != DIVERGED]
            arrays = np.array([self._array(self.results[p].weights) for p in places])
        for belongs, evaluate in self._evaluators:
            mine = [i for i, p in enumerate(places) if belongs(self.results[p].lane)]
            if mine:
                self._validate([places[i] for i in mine], arrays[mine], evaluate)

    def _validate(self, places, arrays, evaluate):
        results = [self.results[place] for place in places]
        if self._scalings is not None:
            columns = LaneColumns(len(places), self.model.n_outputs)
            rescaling = self._rescaled([r.scaling for r in results], columns)
            arrays = columns.unpack(rescaling.effective(columns.pack(arrays)))
        found = evaluate([result.lane for result in results], arrays)
        for result, metrics in zip(results, found):
            if result.records:
                result.records[-1].update(metrics)

    def _array(self, weights):
        """Return the parameters (d + 1, c) of tensors by name; see `_named`."""
        weight, *intercept = (weights[t.name] for t in self.model.layout.tensors)
        last = intercept[0] if intercept else np.zeros_like(weight[0])
        return np.concatenate([weight, last[None]])

    def _rescaled(self, scalings, columns):
        dtype = self.model.layout.dtype
        return Rescaling(scalings, columns, dtype, self._has_intercept)
