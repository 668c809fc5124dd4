"""One copy of the model a node, in memory that its ranks share."""

import math

import numpy as np

from pympi_train.backends.blocks import quiet
from pympi_train.backends.threads import for_chunks
from pympi_train.comm import collectives
from pympi_train.comm.checks import is_agreed, together
from pympi_train.comm.mesh import Nodes
from pympi_train.comm.shared import SharedBlock, padded, require_space
from pympi_train.errors import DivergenceError
from pympi_train.flat.memory import empty_block
from pympi_train.flat.parts import Part, even_cuts
from pympi_train.flat.state import held
from pympi_train.parallel.stateful import optimizer_holdings
from pympi_train.parallel.synchronous import Synchronous
from pympi_train.parallel.whole_gradient import WholeGradient, require_usable_square

INSTEAD = 'choose strategy = "allreduce" in [parallel]'
PIECE_BYTES = 524_288  # of a sum and its summand in cache; half costs a tenth more


class Hierarchical(WholeGradient, Synchronous):
    r"""Parameters once a node, all gradients of the node readable by all its ranks.

    The block is cut into :math:`S` slices, as many as the smallest node has ranks.
    Rank :math:`s < S` of each node sums slice :math:`s` over the gradients of its
    node, straight from where they were written, exchanges it with the ranks of the
    same number on the other nodes, and updates it: its part of the optimizer's state
    is all that there is on the node.

    Parameters
    ----------
    comm, layout, optimizer, ops
        As for `Strategy`; this rank's part of the optimizer's state is allocated here.
    compression : {"none", "fp16", "bf16", "int8"}
        Of what travels between nodes.
    colour : int, optional
        Ranks of one colour count as one node, for tests; they have to share memory.

    Attributes
    ----------
    params : ndarray, shape (layout.size,)
        The node's: what one rank writes there, all its ranks have.
    grads : ndarray, shape (layout.size,)
        This rank's gradient sum; after ``combine`` its own slice may be overwritten.

    Raises
    ------
    ConfigError
        On every rank, if a node has too little shared memory.

    Notes
    -----
    Collective.

    With :math:`n` parameters, :math:`N` nodes and :math:`R` ranks on each, a step
    takes two barriers of the node, a sum of one float64 and, where :math:`N > 1`, one
    Allreduce of :math:`n / R` elements between :math:`N` ranks. A rank sends
    :math:`2 (n / R) (N - 1) / N` elements at best, a node :math:`2 n (N - 1) / N`,
    and nothing where there is one node; ``sent_bytes`` counts this, compressed where
    it is. Clipping and an L2 penalty take one more sum of one float64 each. Memory of a
    node with Adam: :math:`(R + 3) n` elements instead of :math:`4 R n`. With micro
    batches each rank has :math:`n` more, as elsewhere.

    All ranks of a node send at the same time, so no leader's link is the limit [1]_.

    The sum of a slice is written into the own gradient, and its square taken while a
    piece of it is in cache. To sum and update in one pass instead takes longer: no
    parameter may move before the sum is known to be usable, so each rank would have
    to read its own gradient once more. Seen, on one core, 8.4 million parameters: 4.0
    ms against 4.8 for R = 2, 2.4 against 3.0 for R = 8.

    References
    ----------
    .. [1] M. Bayatpour et al., "Scalable reduction collectives with data
       partitioning-based multi-leader design", SC 2017.
    """

    def __init__(
        self, comm, layout, optimizer, ops, *, compression="none", colour=None
    ):
        self._nodes = nodes = Nodes(comm, colour)
        rank, n_slices = nodes.node.rank, nodes.n_slices
        cuts = even_cuts(0, layout.size, n_slices)
        cuts += [layout.size] * (nodes.node.size - n_slices)
        self._slice = slice(cuts[rank], cuts[rank + 1])
        self._width = padded(layout.size, layout.dtype)
        self._shared_params = self._shared_grads = None
        try:
            with together(comm):
                n_elements = layout.size + nodes.node.size * self._width
                require_space(n_elements * layout.dtype.itemsize, INSTEAD)
                self._part = Part(layout, [(self._slice.start, self._slice.stop)])
                self._runs = self._part.runs()
                optimizer.allocate(self._part, ops)
            self._make_memory(np.diff(cuts), layout.dtype)
            super().__init__(comm, layout, optimizer, ops)
            if nodes.across is not None:
                from pympi_train.comm.sums.compress import compressed_sum

                self._wire = compressed_sum(
                    compression, nodes.across, self._part, ops
                )
        except Exception as error:
            if is_agreed(error, comm):
                self._free_memory()
            raise
        self.chosen = {"strategy": "hierarchical", "nodes": nodes.n_nodes}
        self._square = math.nan  # of the summed gradient

    def _make_memory(self, sizes, dtype):
        """Make the blocks that the node shares. Collective."""
        node = self._nodes.node
        self._shared_params = SharedBlock(node, sizes, dtype)
        self._shared_grads = SharedBlock(node, [self._width] * node.size, dtype)

    def _make_blocks(self):
        """Return this rank's views of the shared blocks: parameters, own gradient."""
        size, rank = self.layout.size, self._nodes.node.rank
        self._stack = self._shared_grads.array.reshape(-1, self._width)[:, :size]
        return self._shared_params.array, self._stack[rank]

    def init(self, model, seed):
        """Write the model's starting point, once a node. Collective."""
        try:
            if self._nodes.node.rank == 0:
                super().init(model, seed)
        finally:  # else the others would wait for the rank that raised
            self._shared_params.sync()

    @property
    def own(self):
        """This rank's slice of the parameters."""
        return self.params[self._slice]

    def holdings(self):
        """Return this rank's slice of the parameters and of optimizer state."""
        wire = () if self._wire is None else self._wire.holdings(self._part)
        return [
            held("params", self._part, self.own, self.ops),
            *optimizer_holdings(self._optimizer, self._part, self.ops),
            *wire,
        ]

    def restored(self):
        """Wait until all ranks have written their slices. Collective."""
        self._shared_params.sync()

    def combine(self):
        """Sum the own slice over the node, then over all nodes. Collective."""
        self._sync(self._shared_grads)
        own = self.grads[self._slice]
        square = self._add_others(own)
        across = self._nodes.across
        if across is not None:
            self._wire.sum(own)
            self.sent_bytes = self._wire.sent_bytes
            square = self.ops.square(own)
        # Also says that all have read this rank's gradient, which it may overwrite.
        self._square = self._total(square)

    def _add_others(self, own):
        """Add the node's other gradients to the own slice; return its square."""
        rank, squares = self._nodes.node.rank, []
        others = [row[self._slice] for i, row in enumerate(self._stack) if i != rank]
        step = PIECE_BYTES // own.itemsize

        @quiet
        def add(chunk):
            for start in range(chunk.start, chunk.stop, step):
                piece = slice(start, min(start + step, chunk.stop))
                total = own[piece]
                for other in others:
                    np.add(total, other[piece], out=total)
                squares.append(float(np.dot(total, total)))  # while it is in cache

        for_chunks(add, own.size)
        if not all(map(math.isfinite, squares)):
            return self.ops.square(own)
        return math.fsum(squares)  # the same in any order, so with any threads

    def update(self, *, lr, weight, l2, clip_norm=None):
        """Update the own slice, and wait until the others have. Collective."""
        # Where this raises it holds no array: see `SharedBlock.free`.
        scale, norm = 1.0 / weight, None
        if clip_norm is None:
            require_usable_square(self._square, lr * scale, self.layout.dtype)
        else:
            norm = self._norm(scale, l2)
            if not math.isfinite(norm):
                raise DivergenceError("the gradient became NaN or infinite")
        self._optimizer.update(
            self.own,
            self.grads[self._slice],
            lr=lr,
            grad_scale=scale,
            l2=l2,
            clip_norm=clip_norm,
            norm=norm,
        )
        self._sync(self._shared_params)

    def _sync(self, shared):
        """Wait for the node's ranks, and see what they wrote. Collective."""
        shared.fence()
        collectives.barrier(self._nodes.node)
        shared.fence()

    def _norm(self, scale, l2):
        """Return the norm of the mean gradient, penalty included. Collective."""
        norm = self._optimizer.gradient_norm(
            self.own, self.grads[self._slice], grad_scale=scale, l2=l2
        )
        return math.sqrt(self._total(norm * norm))

    def _total(self, value):
        """Return the sum of ``value`` over the slices. Collective."""
        (total,) = collectives.reduced(self.comm, [value])
        return float(total) / self._nodes.n_nodes

    def penalty(self, l2):
        """Return ``l2 / 2 |W|^2`` over weights, in float64. Collective.

        Each rank looks at its own slice: others may be updated already.
        """
        if l2 == 0:
            return 0.0
        square = self.ops.weights_square(self.own, self._runs)
        return 0.5 * l2 * self._total(square)

    def free(self):
        """Free the shared memory; this rank keeps a copy of the parameters."""
        if self._shared_params is None:
            return
        params = empty_block(self.layout)
        params[:] = self.params
        self.param_views.clear()  # a frame of a traceback may hold the list
        self.grad_views.clear()
        self.params, self.param_views = params, self.layout.views(params)
        self.grads = self._stack = None
        self._free_memory()

    def _free_memory(self):
        """Free what the node shares. Collective."""
        for shared in (self._shared_params, self._shared_grads):
            if shared is not None:
                shared.free()
        self._shared_params = self._shared_grads = None
        self._nodes.free()
