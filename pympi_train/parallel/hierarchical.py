"""One copy of the model a node, in memory that its ranks share."""

import math

import numpy as np

from pympi_train.backends.blocks import block_size, scratch
from pympi_train.backends.memory import empty_block
from pympi_train.backends.parts import Part, even_cuts
from pympi_train.comm import collectives
from pympi_train.comm.checks import together
from pympi_train.comm.mesh import Nodes
from pympi_train.comm.shared import SharedBlock, padded, require_space
from pympi_train.errors import DivergenceError
from pympi_train.parallel.base import (
    LARGEST_STEP,
    WholeGradient,
    require_usable_square,
    square_of,
)

INSTEAD = 'choose strategy = "allreduce" in [parallel]'
SAFE = 2.0  # a norm in float32 by the BLAS is nearer than that


class Hierarchical(WholeGradient):
    r"""Parameters once a node, all gradients of the node readable by all its ranks.

    The block is cut into :math:`S` slices, as many as the smallest node has ranks.
    Rank :math:`s < S` of each node sums slice :math:`s` over the gradients of its
    node, straight from where they were written, exchanges it with the ranks of the
    same number on the other nodes, and updates it: its part of the optimizer's state
    is all that there is on the node.

    On one node and without clipping, sum and update are one pass that goes from piece
    to piece, so that the summed gradient stays in cache.

    Parameters
    ----------
    comm, layout, optimizer, ops
        As for `Strategy`; this rank's part of the optimizer's state is allocated here.
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
    Collective. A rank that stays away leaves the others waiting.

    With :math:`n` parameters, :math:`N` nodes and :math:`R` ranks on each, a step
    takes three barriers or tiny sums of the node and, where :math:`N > 1`, one
    Allreduce of :math:`n / R` elements between :math:`N` ranks. A rank sends
    :math:`2 (n / R) (N - 1) / N` elements at best, a node :math:`2 n (N - 1) / N`,
    and nothing where there is one node; ``sent_bytes`` counts this. Memory of a node
    with Adam: :math:`(R + 3) n` elements instead of :math:`4 R n`. With micro batches
    each rank has :math:`n` more, as elsewhere.

    All ranks of a node send at the same time, so no leader's link is the limit [1]_.
    Whether a step is usable has to be known before a parameter moves, so before the
    one pass. Let :math:`g_r` be the gradient of rank :math:`r`: where :math:`\sum_r
    |g_r|` shows that the sum is finite and small enough, the pass goes ahead; else the
    sum is made first and looked at.

    References
    ----------
    .. [1] M. Bayatpour et al., "Scalable reduction collectives with data
       partitioning-based multi-leader design", SC 2017.
    """

    def __init__(self, comm, layout, optimizer, ops, *, colour=None):
        self._nodes = nodes = Nodes(comm, colour)
        rank, n_slices = nodes.node.rank, nodes.n_slices
        cuts = even_cuts(0, layout.size, n_slices)
        cuts += [layout.size] * (nodes.node.size - n_slices)
        self._slice = slice(cuts[rank], cuts[rank + 1])
        self._width = padded(layout.size, layout.dtype)
        try:
            with together(comm):
                n_elements = layout.size + nodes.node.size * self._width
                require_space(n_elements * layout.dtype.itemsize, INSTEAD)
                part = Part(layout, [(self._slice.start, self._slice.stop)])
                self._runs = part.runs()
                optimizer.allocate(part, ops)
        except Exception:
            nodes.free()
            raise
        self._shared_params = SharedBlock(nodes.node, np.diff(cuts), layout.dtype)
        widths = [self._width] * nodes.node.size
        self._shared_grads = SharedBlock(nodes.node, widths, layout.dtype)
        super().__init__(comm, layout, optimizer, ops)
        self.chosen = {"strategy": "hierarchical", "nodes": nodes.n_nodes}
        self._one_pass = nodes.n_nodes == 1 and nodes.node.size > 1
        self._clips = False

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

    def restored(self):
        """Wait until all ranks have written their slices. Collective."""
        self._shared_params.sync()

    def combine(self):
        """Wait for the node's gradients; on several nodes, sum them. Collective."""
        if self._one_pass:
            self._bound = math.inf
            self._shared_grads.fence()
            if self._clips:  # as in the last step: the norm will tell
                self.comm.Barrier()
            else:
                norm = math.sqrt(float(np.dot(self.grads, self.grads)))
                (self._bound,) = collectives.reduced(self.comm, [norm])
            self._shared_grads.fence()
            return
        self._bound = math.inf
        self._shared_grads.sync()
        self._sum()
        across = self._nodes.across
        if across is not None:
            own = self.grads[self._slice]
            collectives.sum_in_place(across, own)
            self.sent_bytes += 2 * own.nbytes * (across.size - 1) // across.size

    def update(self, *, lr, weight, l2, clip_norm=None):
        """Update this rank's slice, and wait for those of the others. Collective."""
        scale = 1.0 / weight
        self._clips = clip_norm is not None
        step = SAFE * lr * scale * self._bound
        if not self._clips and step <= LARGEST_STEP[self.grads.dtype.char]:
            self._optimizer.update_by_sum(
                self.own, self._stack[:, self._slice], lr=lr, grad_scale=scale, l2=l2
            )
        else:
            if self._one_pass:
                self._sum()
            self._update_summed(lr, scale, l2, clip_norm)
        self._shared_params.sync()

    def _sum(self):
        """Write the sum of the node's gradients into the own slice of the own one."""
        if len(self._stack) == 1:
            return
        rows, out = self._stack[:, self._slice], self.grads[self._slice]

        def add(piece):  # beside ``out``, which is one of the rows
            total = scratch(out.dtype, piece.stop - piece.start)
            self.ops.sum_rows(rows[:, piece], total)
            out[piece] = total

        self.ops.in_pieces(add, out.size, block_size(out.dtype))

    def _update_summed(self, lr, scale, l2, clip_norm):
        """Update the own slice from the summed gradient that lies in ``grads``."""
        own, grads, norm = self.own, self.grads[self._slice], None
        if clip_norm is None:
            require_usable_square(self._total(square_of(grads)), lr * scale, own.dtype)
        else:
            norm = self._optimizer.gradient_norm(own, grads, grad_scale=scale, l2=l2)
            norm = math.sqrt(self._total(norm * norm))
        try:
            self._optimizer.update(
                own,
                grads,
                lr=lr,
                grad_scale=scale,
                l2=l2,
                clip_norm=clip_norm,
                norm=norm,
            )
        except DivergenceError as error:  # found by the norm; the advice is the loop's
            raise DivergenceError("the gradient became NaN or infinite") from error

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
        square, own = 0.0, self.own
        for run, is_weight in self._runs:
            if is_weight:
                w = own[run]
                square += self.ops.squared_norm(w, w, grad_scale=1.0, l2=0.0)
        return 0.5 * l2 * self._total(square)

    def free(self):
        """Free the shared memory; this rank keeps a copy of the parameters."""
        if self._shared_params is None:
            return
        params = empty_block(self.layout)
        params[:] = self.params
        self.params, self.param_views = params, self.layout.views(params)
        self.grads = self.grad_views = self._stack = None
        self._shared_params.free()
        self._shared_grads.free()
        self._shared_params = self._shared_grads = None
        self._nodes.free()
