"""Loss and gradient of all lanes on a batch."""

import importlib

import numpy as np

from pympi_train.backends.csr import SparseRows
from pympi_train.flat.memory import Layout, Tensor

KERNELS = {
    "logistic_loss": "logistic_lanes",
    "softmax_cross_entropy": "softmax_lanes",
    "squared_error": "squared_lanes",
}


class Products:
    r"""Loss and gradient of L linear models on the same rows.

    With the lanes' weights side by side in :math:`W`,

    .. math::
        Z = X W + b, \qquad \delta_{il} = w_i [f_i \ne h_l]\,
        \frac{\partial \ell(z_{il}, y_i)}{\partial z_{il}}, \qquad
        \frac{\partial L}{\partial W} = X^T \delta, \qquad
        \frac{\partial L}{\partial b} = \sum_i \delta_i,

    so a batch is read once for all lanes.

    Parameters
    ----------
    model : Linear, Logistic or Softmax
    columns : LaneColumns
    held : ndarray of int32, shape (L,)
        The fold that each lane holds out.
    backend : Backend
    has_offset : bool
        Whether the last row of the parameters is used: that of the intercepts, by
        default if the model has one.

    Attributes
    ----------
    layout : Layout
        One tensor, shape (n_blocks, d + 1, width): the weights, and the intercepts in
        the last row, which stay zero without an intercept.
    losses : ndarray, shape (n_blocks, slots), float64
        Loss sums, to which ``gradient`` adds.
    """

    def __init__(self, model, columns, held, backend, has_offset=None):
        self.columns, self._ops = columns, backend.ops
        name = f"pympi_train.backends.{backend.name}.lanes"
        self.kernels = importlib.import_module(name)
        self._kernel = getattr(self.kernels, KERNELS[model.head.op])
        has_intercept = len(model.layout.tensors) > 1
        self._has_offset = has_intercept if has_offset is None else has_offset
        self.n_features, self._dtype = model.n_features, model.layout.dtype
        shape = columns.n_blocks, self.n_features + 1, columns.width
        self.layout = Layout([Tensor("lanes", shape)], self._dtype)
        self._held = columns.by_slot(held.astype(np.int32), fill=-2)
        self.losses = np.zeros((columns.n_blocks, columns.n_slots))
        self._work, self._batch = np.empty((0, columns.width), self._dtype), None

    def take(self, batch, folds):
        """Set the batch, and the fold of each of its rows, for ``gradient``."""
        self._batch = batch, folds

    def gradient(self, params, grads):
        """Overwrite ``grads`` by the gradient sums; add to ``losses``.

        ``params`` and ``grads`` are lists of one array, the layout's tensor.
        """
        batch, folds = self._batch
        for block, (p, g) in enumerate(zip(params[0], grads[0])):
            z = self.outputs(p, batch.x)
            self._add_losses(z, batch, folds, self._held[block], self.losses[block])
            if isinstance(batch.x, SparseRows):
                self._ops.sparse.csr_transposed_matmul(batch.x, z, g[:-1])
            else:
                self._ops.matmul(batch.x.T, z, g[:-1])
            if self._has_offset:
                self._ops.column_sums(z, g[-1])

    def rehearse(self, batch):
        """Call all kernels once, given a batch without rows of the training."""
        tensor = self.layout.tensors[0].shape[1:]
        self.take(batch, np.zeros(0, np.int32))
        params, grads = (np.zeros((1, *tensor), self._dtype) for _ in range(2))
        self.gradient([params], [grads])
        columns = self.columns
        row = batch._replace(
            y=np.zeros((1, *batch.y.shape[1:]), batch.y.dtype),
            weights=None if batch.weights is None else np.ones(1, batch.weights.dtype),
        )
        z = np.zeros((1, columns.width), self._dtype)
        self.add_losses(z, row, np.zeros(columns.n_slots))
        if batch.y.ndim == 1:
            hits = np.zeros(columns.n_slots)
            self.kernels.count_hits(columns.slots(z), row.y, row.weights, hits)

    def outputs(self, params, x):
        """Return the outputs of one block, shape (k, width), in a workspace."""
        if len(x) > len(self._work):
            n_rows = len(x) + len(x) // 8
            self._work = np.empty((n_rows, self.columns.width), self._dtype)
        z = self._work[: len(x)]
        if isinstance(x, SparseRows):
            self._ops.sparse.csr_matmul(x, params[:-1], z)
        else:
            self._ops.matmul(x, params[:-1], z)
        if self._has_offset:
            self._ops.bias_add(z, params[-1])
        return z

    def add_losses(self, z, batch, losses):
        """Add the losses of one block's outputs to ``losses``; all rows count."""
        folds = np.full(len(z), -1, np.int32)
        held = np.full(len(losses), -2, np.int32)
        self._add_losses(z, batch, folds, held, losses)

    def _add_losses(self, z, batch, folds, held, losses):
        slots = self.columns.slots(z)
        self._kernel(slots, batch.y, batch.weights, folds, held, losses)
