"""Gradients of row groups, summed by a fixed tree: equal bits on any ranks."""

import math

from pympi_train.comm.control import SlotControl
from pympi_train.comm.sums.tree import Forest, add_chain, total
from pympi_train.comm.sums.tree_sum import TreeSum
from pympi_train.comm.watch import journal as j
from pympi_train.parallel.allreduce import Allreduce

WEIGHT, LOSS, BATCHES = range(3)  # slots of a group in the control exchange


class Exact(Allreduce):
    """As `Allreduce`, but the order of summation does not depend on the ranks.

    The rows are cut into V groups, and each rank owns whole groups, at first equally
    many. The gradient of a batch is computed group by group, so the shapes of all
    matrix products are those of the group. The groups' gradients are summed by the tree
    of `comm.sums.tree`: on each rank as far as its groups go, then between ranks. Each
    rank then applies the same update on one thread.

    Parameters
    ----------
    comm, layout, optimizer, ops
        As for `Allreduce`.
    n_groups : int
        V, at least the number of ranks.

    Notes
    -----
    If P and V are powers of two, a rank sends in a step ``2 n (P - 1) / P`` elements,
    in ``2 log2 P`` messages per 2^20 parameters; otherwise some ranks send whole nodes
    besides (`TreeSum`). Before that, the control exchange sums ``3 V + 2`` numbers of
    float64. A rank holds at most ``2 log2 V + 2`` blocks of gradients.

    Adding each layer's gradient while it is in cache, as soon as backward has written
    it, gave no measurable gain (MLP 784-512-512-10, batches of 128 and 1024).

    The tree is the pairwise summation of [1]_, made independent of the distribution of
    groups over ranks.

    References
    ----------
    .. [1] N. J. Higham, "The Accuracy of Floating Point Summation", SIAM J. Sci.
       Comput. 14 (1993), section 2, pairwise summation.
    """

    _takes_columns = False

    def __init__(self, comm, layout, optimizer, ops, *, n_groups):
        super().__init__(comm, layout, optimizer, ops)
        self.n_groups = n_groups
        self._tree = TreeSum(comm, n_groups)
        self._own()
        self._pool = [(self.grads, self.grad_views)]
        self._control = SlotControl(comm, (3, n_groups))
        self._begin()
        self.chosen.update(exchange="tree", overlap="off")

    def share_groups(self, cuts):
        """Let rank r own the groups from ``cuts[r]`` up to ``cuts[r + 1]``.

        Call it between steps, with the same cuts on every rank; each owns a group.
        """
        self._tree.share_leaves(cuts)
        self._own()

    def _own(self):
        self.own_groups = range(self._tree.first, self._tree.stop)

    def measure(self):
        """Do nothing: the method of summation is fixed."""

    def _begin(self):
        self._forest, self._leaf = Forest(self.n_groups), None
        self._free = self._pool[::-1]

    def _gradient(self, feed, rows, params, error, stop):
        """Compute a global batch's gradient sum; see `Synchronous`. Collective.

        Backward of a micro-batch directly follows its forward, so that only one
        micro-batch's activations are held at a time.
        """
        slots = self._control.slots
        slots[:] = 0.0
        self._mark(j.FORWARD, self.count + 1)
        try:
            for group, own in zip(self.own_groups, feed.by_group(rows)):
                if error is None:
                    self._run_group(feed, own, params, group, slots[:, group])
        except Exception as caught:
            error = caught
        self.laps.lap("compute")
        found, stop = self._control.exchange(error, stop)
        self.laps.lap("communication")
        weight, loss = total(found[:BATCHES].T).tolist()
        if not math.isfinite(loss):
            raise self._divergence(f"the loss became {loss}")
        self._combine_or_leave(found[BATCHES] > 0)
        return weight, loss / weight if weight > 0 else 0.0, stop

    def _run_group(self, feed, rows, params, group, slot):
        n_batches = 0 if rows is None else feed.count(rows)
        self.start_group(group, n_batches > 0)
        slot[BATCHES] = n_batches
        if n_batches == 0:
            return
        for index, batch in enumerate(feed.batches(rows, n_batches)):
            self.laps.lap("input")
            self._mark(j.FORWARD, self.count + 1)
            weight = feed.weight_of(batch)
            slot[WEIGHT] += weight
            if self.noise is not None:
                self.noise.begin_batch(len(batch.x))
            slot[LOSS] += self._model.loss(params, batch)
            self._mark(j.BACKWARD, self.count + 1)
            last = index == n_batches - 1
            self.backward(self._model, params, index, last)
            self.laps.lap("compute")
        if self.noise is not None:
            self.noise.end_share()

    def start_group(self, group, has_rows):
        """Begin the next of ``own_groups``; each step begins all of them, in order.

        Parameters
        ----------
        group : int
        has_rows : bool
            Whether ``backward`` follows. If not, nothing is computed or added.
        """
        if group == self.own_groups.start:
            self._begin()
        self._leaf = self._take() if has_rows else None
        self._chain = self._forest.push((0, group), self._leaf)
        if not has_rows:
            self._join()

    def backward(self, model, params, index, last):
        """Write a micro-batch's gradient sum, or add it to the sum of its group.

        After the last micro-batch, the subtrees that the group completes are summed.
        """
        block, views = self._leaf
        if index == 0:
            model.gradient(params, views)
        else:
            scratch = self._take()
            model.gradient(params, scratch[1])
            self.ops.add(scratch[0], block)
            self._free.append(scratch)
        if last:
            if self.noise is not None:
                self.noise.see_share(self.ops, block)
            self._join()

    def _take(self):
        """Return an unused block and its views."""
        if not self._free:
            block = self.ops.empty_block(self.layout)
            self._pool.append((block, self.layout.views(block)))
            return self._pool[-1]
        return self._free.pop()

    def _join(self):
        """Sum the subtrees that the group completes; free all blocks but the first."""
        if len(self._chain) > 1:
            add_chain([block for block, _ in self._chain])
            self._free.extend(self._chain[1:])

    def combine(self, present):
        """Sum the gradients over the groups. Collective.

        Parameters
        ----------
        present : ndarray of bool, shape (n_groups,)
            Which groups have a row of the batch; equal on every rank.
        """
        blocks = [value[0] for value in self._forest.values if value is not None]
        self.sent_bytes += self._tree.sum(blocks, present, self.grads)
