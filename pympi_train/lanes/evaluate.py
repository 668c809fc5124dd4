"""Validation of all lanes, each on the rows that it holds out."""

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.comm.sums.tree import own_leaves, total
from pympi_train.data.batch import Batch
from pympi_train.data.groups import own_cuts
from pympi_train.lanes.columns import LaneColumns
from pympi_train.lanes.products import Products
from pympi_train.train.metrics import centred_squares, errors_of

WEIGHT, LOSS, HITS = range(3)  # of a lane's sums; squared errors instead of hits


class LaneEvaluator:
    """Returns the metrics of lanes on validation rows, in one pass over the rows.

    A row is multiplied by the lanes that hold it out, and by no others. The metrics
    are those of `train.metrics.Evaluator`.

    Parameters
    ----------
    model : Linear, Logistic or Softmax
    data : Source
        In exact mode, each row is on the rank that owns its group.
    numbers : ndarray of int32, shape (len(data),), or None
        The fold of each of this rank's rows; None: all rows are validation rows.
    feed : Feed
        Of ``data``.
    backend : Backend
    comm : MPI.Comm
    n_groups : int, optional
        Number of groups of rows in exact mode.

    Notes
    -----
    Collective to make and to call.
    """

    def __init__(self, model, data, numbers, feed, backend, comm, n_groups=None):
        self._model, self._data, self._feed = model, data, feed
        self._numbers, self._backend, self._comm = numbers, backend, comm
        self._n_groups, self._spreads, self._room = n_groups, {}, None
        self._groups, self._first = [slice(0, len(data))], 0
        if n_groups is not None:
            cuts = own_cuts(data.n, n_groups, comm.rank, comm.size).tolist()
            self._groups = [slice(*cut) for cut in zip(cuts, cuts[1:])]
            self._first = own_leaves(comm.rank, comm.size, n_groups)[0]

    def __call__(self, lanes, arrays):
        """Return a dict of metrics for each of ``lanes``.

        Parameters
        ----------
        lanes : sequence of Lane
        arrays : ndarray, shape (L, d + 1, c)
            Their parameters, equal on every rank.

        Notes
        -----
        Collective.
        """
        model = self._model
        by_fold = _by_fold(lanes, self._numbers is None)
        parts = []
        for fold, members in by_fold.items():
            made_of = len(members), model.n_outputs, self._n_groups is not None
            columns = LaneColumns(*made_of)
            held = np.full(len(members), -2, np.int32)
            products = Products(model, columns, held, self._backend, True)
            parts.append((fold, members, products, columns.pack(arrays[members])))
        width = 2 + (model.n_outputs if model.task == "regression" else 1)
        slots = np.zeros((self._n_groups or 1, len(lanes), width))
        with together(self._comm):
            for sums, rows in zip(slots[self._first :], self._groups):
                for batch in self._feed.batches(rows):
                    for part in parts:
                        self._add(sums, batch, *part)
        slots = reduced(self._comm, slots)
        sums = slots[0] if self._n_groups is None else total(slots)
        return [self._metrics(*pair) for pair in zip(lanes, sums)]

    def _add(self, sums, batch, fold, members, products, params):
        """Add to the sums of the lanes that hold out one fold."""
        if self._numbers is not None:
            batch = self._held_out(batch, fold)
        if not len(batch.x):
            return
        weights = batch.weights
        n_rows = len(batch.x) if weights is None else weights.sum(dtype=np.float64)
        sums[members, WEIGHT] += n_rows
        columns = products.columns
        losses = np.zeros((columns.n_blocks, columns.n_slots))
        found = np.zeros((columns.n_blocks, columns.n_slots, sums.shape[1] - 2))
        for block, p in enumerate(params):
            z = products.outputs(p, batch.x)
            self._count(products, columns.slots(z), batch, found[block])
            products.add_losses(z, batch, losses[block])
        sums[members, LOSS] += columns.by_lane(losses)
        sums[members, HITS:] += columns.by_lane(found)

    def _held_out(self, batch, fold):
        rows, start = batch.rows, self._data.start
        if isinstance(rows, slice):
            own = self._numbers[rows.start - start : rows.stop - start]
        else:
            own = self._numbers[rows - start]
        at = np.flatnonzero(own == fold)
        x = batch.x[at] if hasattr(batch.x, "indices") else self._taken(batch.x, at)
        weights = None if batch.weights is None else batch.weights[at]
        return Batch(x, batch.y[at], weights, None)

    def _taken(self, x, at):
        """Return rows of ``x`` in a workspace."""
        if self._room is None or len(self._room) < len(at):
            self._room = np.empty((len(at) + len(at) // 8, x.shape[1]), x.dtype)
        out = self._room[: len(at)]
        self._backend.ops.take_rows(x, at, out)
        return out

    def _count(self, products, outputs, batch, found):
        """Add hits (slots, 1), or squared errors (slots, t), to ``found``."""
        y, weights = batch.y, batch.weights
        if self._model.task == "classification":
            products.kernels.count_hits(outputs, y, weights, found[:, 0])
            return
        squares = np.square(outputs - y[:, None, :], dtype=np.float64)
        if weights is not None:
            squares *= weights[:, None, None]
        found += np.add.reduce(squares, axis=0)

    def _metrics(self, lane, sums):
        weight, loss, *others = sums.tolist()
        found = {"validation_loss": loss / weight if weight else 0.0}
        if self._model.task == "classification":
            found["accuracy"] = others[0] / (weight or 1.0)
        else:
            spread = self._spread(lane)
            found |= errors_of(others, weight or 1.0, spread, self._data.units)
        return found

    def _spread(self, lane):
        """Return the centred squares of the rows that a lane holds out. Collective."""
        fold = None if self._numbers is None else lane.fold
        if fold not in self._spreads:
            y, weights = self._data.targets(), self._data.row_weights()
            if fold is not None:
                own = self._numbers == fold
                weights = own.astype(np.float64) if weights is None else weights * own
            spread = centred_squares(y, weights, self._comm, self._groups)
            self._spreads[fold] = spread.tolist()
        return self._spreads[fold]


def _by_fold(lanes, is_one):
    """Return the indices of lanes by fold; with ``is_one`` all under None."""
    found: dict = {}
    for index, lane in enumerate(lanes):
        found.setdefault(None if is_one else lane.fold, []).append(index)
    return found
