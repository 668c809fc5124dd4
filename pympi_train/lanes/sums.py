"""Gradient sums of all lanes over the rows of a batch and over the ranks."""

import numpy as np

from pympi_train.comm import node_sums as near
from pympi_train.comm.checks import raise_together
from pympi_train.comm.collectives import sum_in_place
from pympi_train.comm.control import SlotControl
from pympi_train.comm.shared import LINE_BYTES
from pympi_train.comm.sums.tree import total
from pympi_train.comm.watch.drift import require_same
from pympi_train.parallel.allreduce import Allreduce
from pympi_train.parallel.exact import Exact


class LaneSums:
    """Sums the gradients of a batch over micro-batches and ranks.

    Two sums travel in a step, for all lanes: the gradients, and a control message of
    2 L + 2 numbers of float64, weight and loss of each lane, stop and errors. If the
    ranks share a node and the block is small, they are one.

    Parameters
    ----------
    comm : MPI.Comm
    products : Products
    folds : Folds

    Attributes
    ----------
    params, grads : ndarray, shape (n_blocks, d + 1, width)
    """

    n_groups = None

    def __init__(self, comm, products, folds, ops):
        self._comm, self._products, self._folds = comm, products, folds
        self._strategy = self._make_strategy(ops)
        self.params = self._strategy.param_views[0]
        self.grads = self._strategy.grad_views[0]
        self._begin()

    def _make_strategy(self, ops):
        return Allreduce(self._comm, self._products.layout, None, ops)

    def _begin(self):
        n_lanes = self._products.columns.n_lanes
        self._control = np.zeros(2 * n_lanes + 2)
        comm, grads = self._comm, self._strategy.grads
        shared = near.node_sums(comm) if comm.size > 1 else None
        n_bytes = grads.nbytes + self._control.nbytes + 2 * LINE_BYTES
        self._is_one_sum = bool(shared) and n_bytes <= shared.most_bytes

    def check_drift(self, when):
        """Raise DriftError unless all ranks have the same parameters. Collective."""
        block = self._strategy.params
        require_same(self._comm, self._products.layout, block, when)

    def free(self):
        """Free the resources of the exchange. Collective."""
        self._strategy.free()

    def gradient(self, feed, rows, params, error=None, stop=False):
        """Write the gradient sums over all ranks to ``grads``.

        Parameters
        ----------
        feed : Feed
        rows : slice or ndarray of intp
            This rank's rows of the batch.
        params : ndarray, shape (n_blocks, d + 1, width)
        error : Exception, optional
            Of this rank since the last call. All ranks then raise.
        stop : bool
            Whether this rank requests to stop.

        Returns
        -------
        weights, losses : ndarray, shape (L,), float64
            Sums over the rows that each lane trains on.
        stop : bool
            Whether any rank requests it.

        Notes
        -----
        Collective.
        """
        control, products = self._control, self._products
        n_lanes = products.columns.n_lanes
        control[:] = 0.0
        products.losses[:] = 0.0
        if error is None:
            try:
                self._add_up(feed, rows, [params], control[:n_lanes])
                losses = products.columns.by_lane(products.losses)
                control[n_lanes:-2] = losses
            except Exception as caught:
                error = caught
        control[-2:] = stop, error is not None
        if self._is_one_sum:
            near.reduce(self._comm, control, self._strategy.grads)
        else:
            sum_in_place(self._comm, control)
        if control[-1]:
            raise_together(self._comm, error)
        if not self._is_one_sum:
            self._strategy.combine()
        found = control[:-2].reshape(2, n_lanes).copy()
        return found[0], found[1], control[-2] > 0

    def _add_up(self, feed, rows, params, weights):
        """Run the micro-batches of ``rows``; add to the lanes' weights."""
        n_batches = feed.count(rows)
        for index, batch in enumerate(feed.batches(rows, n_batches)):
            self._products.take(batch, self._folds.of(batch))
            last = index == n_batches - 1
            self._strategy.backward(self._products, params, index, last)
        weights += self._folds.weights(rows)


class ExactLaneSums(LaneSums):
    """Sums by a fixed tree over groups of rows: the same bits on any ranks.

    Parameters
    ----------
    comm, products, folds, ops
        As for `LaneSums`.
    n_groups : int
        V, at least the number of ranks.
    """

    def __init__(self, comm, products, folds, ops, n_groups):
        self.n_groups = n_groups
        super().__init__(comm, products, folds, ops)

    def _make_strategy(self, ops):
        layout = self._products.layout
        return Exact(self._comm, layout, None, ops, n_groups=self.n_groups)

    def _begin(self):
        n_lanes = self._products.columns.n_lanes
        shape = 2 * n_lanes + 1, self.n_groups
        self._control = SlotControl(self._comm, shape)

    def gradient(self, feed, rows, params, error=None, stop=False):
        """Write the gradient sums over all ranks to ``grads``; see `LaneSums`."""
        strategy, control = self._strategy, self._control
        n_lanes = self._products.columns.n_lanes
        control.slots[:] = 0.0
        if error is None:
            try:
                for group, own in zip(strategy.own_groups, feed.by_group(rows)):
                    slot = control.slots[:, group]
                    self._run_group(feed, own, [params], group, slot)
            except Exception as caught:
                error = caught
        found, stop = control.exchange(error, stop)
        strategy.combine(found[-1] > 0)
        weights, losses = total(found[:-1].T).reshape(2, n_lanes)
        return weights, losses, stop

    def _run_group(self, feed, rows, params, group, slot):
        products, n_lanes = self._products, self._products.columns.n_lanes
        self._strategy.start_group(group, rows is not None)
        if rows is None:
            return
        products.losses[:] = 0.0
        weights = np.zeros(n_lanes)
        self._add_up(feed, rows, params, weights)
        slot[:n_lanes] = weights
        slot[n_lanes:-1] = products.columns.by_lane(products.losses)
        slot[-1] = 1.0
