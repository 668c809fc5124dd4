"""Gradients of groups of rows, summed by one tree: the same bits on any ranks."""

from pympi_train.backends.memory import empty_block
from pympi_train.comm.tree import Forest, TreeSum, add_chain
from pympi_train.parallel.allreduce import Allreduce
from pympi_train.parallel.overlap import Watched


class Exact(Allreduce):
    """As `Allreduce`, but what is added to what does not depend on the ranks.

    The rows are cut into V groups, and a rank owns whole ones. The gradient of a batch
    is computed group by group, so that the shapes of all products are those of the
    group; the groups' gradients are summed by the tree of `comm.tree`: on the rank as
    far as its groups go, then between ranks. What each rank does with the sum, alone
    and on one thread, is the same everywhere.

    Parameters
    ----------
    comm, layout, optimizer, ops
        As for `Allreduce`.
    n_groups : int
        V, at least as many as ranks.
    layered : bool
        Whether the model takes the gradients layer by layer, as one with
        ``layer_spans`` does: a layer's is then added while it is in cache.

    Notes
    -----
    With ``k`` complete nodes of the tree on a rank, a step sends
    ``(k + 1) n (P - 1) / P`` elements a rank in ``(k + 1) (P - 1)`` messages for each
    2^20 parameters: slices of the nodes by Alltoallv, slices of the sum by Allgatherv.
    ``k`` is 1 where P and V are powers of two, and at most ``2 log2 V``. V more
    numbers of control go out before. A rank holds at most ``2 log2 V + 2`` blocks of
    gradients.

    The tree is that of [1]_ for one process, made independent of who holds what.

    References
    ----------
    .. [1] N. J. Higham, "The Accuracy of Floating Point Summation", SIAM J. Sci.
       Comput. 14 (1993), section 2, pairwise summation.
    """

    def __init__(self, comm, layout, optimizer, ops, *, n_groups, layered=False):
        super().__init__(comm, layout, optimizer, ops)
        self.n_groups = n_groups
        self._tree = TreeSum(comm, n_groups)
        self.own_groups = range(self._tree.first, self._tree.stop)
        self._layered = layered
        self._pool = [(self.grads, self.grad_views)]
        self._begin()
        self.chosen.update(exchange="tree", overlap="off")

    def measure(self):
        """There is nothing to choose."""

    def _begin(self):
        self._forest, self._leaf = Forest(self.n_groups), None
        self._free = self._pool[::-1]

    def start_group(self, group, has_rows):
        """Begin with the next of the own groups; all of them, in order, each step.

        Parameters
        ----------
        group : int
        has_rows : bool
            Whether ``backward`` follows. If not, nothing is computed nor added.
        """
        if group == self.own_groups.start:
            self._begin()
        self._leaf = self._take() if has_rows else None
        self._chain = self._forest.push((0, group), self._leaf)
        if not has_rows and len(self._chain) > 1:
            self._join(0, self.layout.size)
            self._give_back()

    def backward(self, model, params, index, last):
        """Write a micro batch's gradient sum, or add it to those of its group before.

        After the last one, the group is added to what it completes in the tree.
        """
        block, views = self._leaf
        scratch = None
        if index > 0:
            scratch, views = taken = self._take()

        def final(start, stop):
            if scratch is not None:
                block[start:stop] += scratch[start:stop]
            if last and len(self._chain) > 1:
                self._join(start, stop)

        if self._layered:
            watched = Watched(views, self.layout, final)
            model.gradient(params, watched)
            watched.close()
        else:
            model.gradient(params, views)
            final(0, self.layout.size)
        if scratch is not None:
            self._free.append(taken)
        if last:
            self._give_back()

    def _take(self):
        """Return a block that nobody uses, and its views."""
        if not self._free:
            block = empty_block(self.layout)
            self._pool.append((block, self.layout.views(block)))
            return self._pool[-1]
        return self._free.pop()

    def _join(self, start, stop):
        add_chain([block[start:stop] for block, _ in self._chain])

    def _give_back(self):
        self._free.extend(self._chain[1:])

    def combine(self, present):
        """Sum the gradients over the groups. Collective.

        Parameters
        ----------
        present : ndarray of bool, shape (n_groups,)
            Which groups have a row of the batch; the same on every rank.
        """
        blocks = [value[0] for value in self._forest.values if value is not None]
        self.sent_bytes += self._tree.sum(blocks, present, self.grads)
