"""Updates of the columns of sparse rows that occur in a batch, and no others."""

import numpy as np


class LazyUpdate:
    """Updates some rows of a weight matrix, as an update of all of them would.

    Parameters
    ----------
    optimizer : Optimizer
        With ``is_lazy``, and allocated.
    layout : Layout
        A weight (d, c), then perhaps a bias (c,), which counts as row d.
    ops : module
        A backend on the CPU.

    Attributes
    ----------
    n_rows : int
        d, or d + 1 with a bias.
    width : int
        c.
    """

    def __init__(self, optimizer, layout, ops):
        self._optimizer, self._layout, self._ops = optimizer, layout, ops
        weight, *biases = layout.tensors
        self._n_weights, self.width = weight.shape
        self.n_rows = self._n_weights + len(biases)

    def norm(self, grad, grad_scale):
        """Return the norm of ``grad_scale * grad``."""
        flat = grad.reshape(-1)
        how = {"grad_scale": grad_scale, "l2": 0.0}
        return self._ops.squared_norm(flat, flat, **how) ** 0.5

    def update(self, params, rows, grad, *, lr, grad_scale):
        """Update ``rows`` of the flat block ``params`` from their gradient sums.

        Parameters
        ----------
        params : ndarray, shape (layout.size,)
        rows : ndarray of int32, shape (m,)
            Each once.
        grad : ndarray, shape (m, c)
        lr, grad_scale : float
            As for `Optimizer.update`.
        """
        at = np.flatnonzero(rows == self._n_weights)
        blocks = [params, *self._optimizer.state.values()]
        parts = [self._taken(block, rows, at) for block in blocks]
        own, *state = (part.reshape(-1) for part in parts)
        how = {"lr": lr, "grad_scale": grad_scale}
        self._optimizer.update_elements(own, grad.reshape(-1), state, **how)
        for block, part in zip(blocks, parts):
            self._put(block, rows, at, part)

    def spread(self, rows, values, block):
        """Write ``values`` of ``rows`` to a flat block that is 0 elsewhere."""
        self._ops.fill(block, 0)
        self._put(block, rows, np.flatnonzero(rows == self._n_weights), values)

    def _taken(self, block, rows, at):
        weight, *biases = self._layout.views(block)
        out = weight.take(rows, axis=0, mode="clip")
        if len(at):
            out[at] = biases[0]
        return out

    def _put(self, block, rows, at, values):
        weight, *biases = self._layout.views(block)
        if len(at):
            biases[0][...] = values[at[0]]
            rows, values = np.delete(rows, at), np.delete(values, at, axis=0)
        weight[rows] = values
