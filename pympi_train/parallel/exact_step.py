"""A step whose result has the same bits at every number of ranks."""

import math

import numpy as np

from pympi_train.comm.control import SlotControl
from pympi_train.comm.sums import tree
from pympi_train.comm.watch import journal as j
from pympi_train.data.feed import Feed
from pympi_train.parallel.step import Step

WEIGHT, LOSS, BATCHES = range(3)  # slots of a group in the control exchange
MISPLACED = (
    "reduction exact needs each rank's rows to be those of its groups, and rows are "
    "moved by fit alone: cut them by data.groups.row_cuts(n, virtual_shards, ranks)"
)


class GroupFeed(Feed):
    """A feed that also cuts a batch by the groups of its rows.

    Parameters
    ----------
    dataset : Dataset
        Whose rows lie where their groups are (`data.groups.regrouped`).
    cuts : ndarray, shape (groups of this rank + 1,)
        Local row where each of them begins, and the last ends.
    most, ops, y_dtype
        As for `Feed`.
    """

    def __init__(self, dataset, cuts, most, ops, y_dtype=None):
        super().__init__(dataset, most, ops, y_dtype)
        self._cuts = cuts

    def by_group(self, rows):
        """Return those of ``rows`` in each own group, in their order; None for none."""
        if isinstance(rows, slice):
            cuts = np.clip(self._cuts, rows.start, rows.stop).tolist()
            return [slice(a, b) if a < b else None for a, b in zip(cuts, cuts[1:])]
        group = np.searchsorted(self._cuts, rows, side="right")
        order = np.argsort(group, kind="stable")
        rows = rows[order]
        ends = np.searchsorted(group[order], np.arange(len(self._cuts)), side="right")
        ends = ends.tolist()
        return [rows[a:b] if a < b else None for a, b in zip(ends, ends[1:])]


class ExactStep(Step):
    """`Step` with an `Exact` strategy: group after group, summed by a tree.

    Forward and backward of a group come together, before the control exchange, so that
    one group's activations are held at a time. Where a loss is not finite, backward
    was in vain; and an error in it reaches all ranks, as one in forward does.
    """

    def __init__(self, comm, model, strategy, **kwargs):
        super().__init__(comm, model, strategy, **kwargs)
        self._control = SlotControl(comm, (3, strategy.n_groups))

    def gradient(self, feed, rows, params):
        """Leave the gradient sum of a global batch with the strategy.

        As `Step.gradient`. Collective.
        """
        error, slots, step = None, self._control.slots, self.count + 1
        slots[:] = 0.0
        self._mark(j.FORWARD, step)
        try:
            for group, own in zip(self.strategy.own_groups, feed.by_group(rows)):
                self._run_group(feed, own, params, group, slots[:, group])
        except Exception as caught:
            error = caught
        self.laps.lap("compute")
        found = self._control.exchange(error)
        self.laps.lap("communication")
        weight, loss = tree.total(found[:BATCHES].T).tolist()
        if not math.isfinite(loss):
            raise self._divergence(f"the loss became {loss}")
        self._mark(j.EXCHANGE, step)
        self.strategy.combine(found[BATCHES] > 0)
        self.laps.lap("communication")
        return weight, loss / weight if weight > 0 else 0.0

    def _run_group(self, feed, rows, params, group, slot):
        n_batches = 0 if rows is None else feed.count(rows)
        self.strategy.start_group(group, n_batches > 0)
        slot[BATCHES] = n_batches
        if n_batches == 0:
            return
        for index, batch in enumerate(feed.batches(rows, n_batches)):
            self.laps.lap("input")
            slot[WEIGHT] += feed.weight_of(batch)
            slot[LOSS] += self._model.loss(params, batch)
            last = index == n_batches - 1
            self.strategy.backward(self._model, params, index, last)
            self.laps.lap("compute")
