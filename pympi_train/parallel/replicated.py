"""Every rank holds all parameters; gradients are summed by Allreduce."""

import math

import numpy as np

from pympi_train.backends.memory import empty_block
from pympi_train.comm import collectives
from pympi_train.errors import DivergenceError

LARGEST_STEP = {t: math.sqrt(np.finfo(t).max) for t in "fd"}  # by dtype.char


class Replicated:
    """Parameters, gradients and optimizer state, whole on every rank.

    All ranks apply the same update to the same parameters with the same summed
    gradient, so replicas that start equal stay equal to the bit.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the batch.
    layout : Layout
        Of the parameters.
    optimizer : Optimizer or None
        Its state is allocated here; None where the caller moves the parameters.
    ops : module
        Where updates run: ``backends.numpy_ops`` or another with its functions.

    Attributes
    ----------
    params, grads : ndarray, shape (layout.size,)
        Flat blocks. ``grads`` holds this rank's gradient sum before ``combine``
        and that of all ranks after it.
    param_views, grad_views : list of ndarray
        Their tensors, in model order.

    Notes
    -----
    A step sends ``2 n (P - 1) / P`` elements a rank at best, ``n`` the parameters
    and ``P`` the ranks; a rank holds ``2 n`` elements and the optimizer's state.
    """

    def __init__(self, comm, layout, optimizer, ops):
        self._comm, self._layout, self.ops = comm, layout, ops
        self._optimizer = optimizer
        self.params, self.grads = empty_block(layout), empty_block(layout)
        self.param_views = layout.views(self.params)
        self.grad_views = layout.views(self.grads)
        if optimizer is not None:
            optimizer.allocate(layout, ops)

    def combine(self):
        """Sum the gradients over the ranks. Collective."""
        collectives.sum_in_place(self._comm, self.grads)

    def update(self, *, lr, weight, l2, clip_norm=None):
        """Update the parameters from the summed gradient of a batch.

        Parameters
        ----------
        lr : float
            Learning rate of this update.
        weight : float
            Total weight of the global batch, > 0: the gradient sum is divided by it.
        l2 : float
            Factor of ``l2 / 2 |W|^2``.
        clip_norm : float, optional
            Largest norm of the mean gradient.

        Raises
        ------
        DivergenceError
            On every rank, if the gradient is NaN or infinite, or so large that the
            parameters could overflow; nothing has changed.
        """
        if clip_norm is None:
            require_usable(self.grads, lr / weight)
        try:
            self._optimizer.update(
                self.params,
                self.grads,
                lr=lr,
                grad_scale=1.0 / weight,
                l2=l2,
                clip_norm=clip_norm,
            )
        except DivergenceError as error:  # found by the norm; the advice is the loop's
            raise DivergenceError("the gradient became NaN or infinite") from error

    def penalty(self, l2):
        """Return ``l2 / 2 |W|^2`` over weights, in float64."""
        return self.add_penalty(l2, self.params)

    def add_penalty(self, l2, params, grad=None):
        """Return ``l2 / 2 |W|^2`` at ``params``, and add ``l2 W`` to ``grad``."""
        if l2 == 0:
            return 0.0
        total = 0.0
        for part, is_weight in self._layout.runs():
            if is_weight:
                w = params[part]
                total += self.ops.squared_norm(w, w, grad_scale=1.0, l2=0.0)
                if grad is not None:
                    grad[part] += w * w.dtype.type(l2)
        return 0.5 * l2 * total


def require_usable(grads, scale):
    """Raise DivergenceError unless a step along ``scale * grads`` stays finite.

    One read of the block by the BLAS, a few percent of an update; only when that sum
    overflows are the elements themselves looked at. A step whose squared length
    overflows is refused too: the loss after it would be infinite, the parameters lost.
    """
    square = float(np.dot(grads, grads))
    if not math.isfinite(square):
        if not np.isfinite(grads).all():
            raise DivergenceError("the gradient became NaN or infinite")
        square = float(np.square(grads, dtype=np.float64).sum())
    if scale * math.sqrt(square) > LARGEST_STEP[grads.dtype.char]:
        raise DivergenceError(f"the step became too large for {grads.dtype}")
