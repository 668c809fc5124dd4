"""A network of dense layers with a loss: base of the models of this package."""

import numpy as np

from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.flat.memory import Layout
from pympi_train.models.base import Model


class Network(Model):
    """A sequence of layers with a loss at the end.

    It computes on any backend, including a GPU's.

    Parameters
    ----------
    layers : sequence of Dense
        The first has no ``input_gradient``; or it is an `Embedding`.
    head : Loss
        A loss of ``layers.losses`` with as many outputs as the last layer.
    dtype : dtype
        The dtype of parameters, gradients and batches.

    Attributes
    ----------
    n_features : int
        Columns of the input.

    Notes
    -----
    Workspaces grow to the largest batch seen, also in evaluation: pass large data in
    chunks.
    """

    on_device = True
    takes_sparse = True

    def __init__(self, layers, head, dtype):
        self.layers, self.head = tuple(layers), head
        self.layout = Layout([t for layer in layers for t in layer.tensors], dtype)
        self.task, self.n_outputs = head.task, head.n_outputs
        self.n_features = layers[0].n_in
        self._dtype = self.layout.dtype
        self.y_dtype = head.y_dtype
        self.use(numpy_ops)
        self._forward_steps = self._pair("forward")
        self._backward_steps = self._pair("backward")[::-1]
        self.layer_spans = tuple(span for _, span in self._forward_steps)
        self._x_shape = self._y_shape = self._rows = None
        self._delta, self._saved = None, []  # by layer, of the last loss

    def use(self, ops, dtype=None):
        """Set the backend; before the first call it is ``numpy.ops``."""
        self._saved = []  # workspaces of another backend
        self._loss = getattr(ops, self.head.op)
        self._x_dtype = self._dtype if dtype is None else dtype
        for layer in self.layers:
            layer.use(ops, self._x_dtype)

    def _pair(self, method):
        """Return [(bound method, slice of its tensors in the layout)] by layer."""
        pairs, start = [], 0
        for layer in self.layers:
            stop = start + len(layer.tensors)
            pairs.append((getattr(layer, method), slice(start, stop)))
            start = stop
        return pairs

    def loss(self, params, batch):
        """Return the weighted loss sum over ``batch``, in float64.

        Raises
        ------
        ValueError
            If a shape or dtype of the batch does not fit the model.
        """
        x, y, weights, _ = batch
        if (
            x.shape != self._x_shape
            or y.shape != self._y_shape
            or x.dtype != self._x_dtype
            or y.dtype != self.y_dtype
            or (
                weights is not None
                and (weights.shape != self._rows or weights.dtype != self._dtype)
            )
        ):
            self._check_shapes(x, y, weights, self._x_dtype)
        self._delta = x = self._forward(params, x)
        return self._loss(x, y, weights)  # leaves its gradient in x

    def _forward(self, params, x):
        """Return the last layer's output; store what the layers' backward needs."""
        kept = self._saved
        if kept:
            self._drop()
        for forward, mine in self._forward_steps:
            x, saved = forward(x, params[mine])
            kept.append(saved)
        return x

    def _drop(self):
        for layer, saved in zip(self.layers, self._saved):
            layer.drop(saved)
        self._saved.clear()

    def gradient(self, params, grads):
        """Overwrite ``grads`` with the gradient sum of the last ``loss``.

        Raises
        ------
        RuntimeError
            Unless the last call of ``loss`` or ``predict`` was ``loss``.
        """
        delta = self._delta
        if delta is None:
            raise RuntimeError(
                "gradient: expected a call of loss() just before, got none since the "
                "model was made or since predict(), which shares its workspaces"
            )
        kept = reversed(self._saved)
        for (backward, mine), saved in zip(self._backward_steps, kept):
            delta = backward(delta, saved, params[mine], grads[mine])

    @property
    def is_one_product(self):
        """Whether the model is one layer without activation: linear in its weights."""
        return len(self.layers) == 1 and self.layers[0].activation is None

    def last_product(self):
        """Return X and delta of the last ``loss``: the gradient is X^T delta.

        For a model with ``is_one_product``; ``gradient`` need not be called then.
        """
        return self._saved[0].input, self._delta

    def predict(self, params, x):
        """Return linear outputs, shape (k, n_outputs), valid until the next call."""
        self._check_features(x, self._x_dtype)
        self._delta = None
        x = self._forward(params, x)
        self._drop()
        return x

    def probabilities(self, outputs):
        r"""Return the probability of each class, given the result of ``predict``.

        Parameters
        ----------
        outputs : ndarray, shape (k, c), or (k, 1) for two classes
            In host memory; not changed.

        Returns
        -------
        ndarray, shape (k, c), or (k, 2), of the outputs' dtype
            :math:`e^{z_j} / \sum_i e^{z_i}`, computed in float64 and then rounded. A
            single output z counts as the two outputs 0 and z.

        Raises
        ------
        ValueError
            If the model is not for classification.
        """
        if self.task == "regression":
            raise ValueError("probabilities are those of classes; this is a regression")
        z = outputs.astype(np.float64)
        if z.shape[1] == 1:
            z = np.hstack([np.zeros_like(z), z])
        z -= z.max(axis=1, keepdims=True, initial=-np.inf)
        np.exp(z, out=z)
        z /= z.sum(axis=1, keepdims=True)
        return z.astype(outputs.dtype)

    def check(self, batch):
        """Raise ValueError if shapes, dtypes or labels of ``batch`` do not fit."""
        self._check_shapes(*batch[:3], self._dtype)
        self.head.check_values(batch.y)

    def _check_features(self, x, dtype):
        if x.ndim != 2 or x.shape[1] != self.n_features:
            raise ValueError(
                f"x: expected shape (k, {self.n_features}), got {x.shape}"
            )
        if x.dtype != dtype:
            raise ValueError(
                f"x: expected {dtype}, got {x.dtype}; convert it once with "
                f"x.astype({str(dtype)!r}), or make the model with another dtype"
            )

    def _check_shapes(self, x, y, weights, dtype):
        self._check_features(x, dtype)
        rows = x.shape[:1]
        wanted = [("y", y, self.head.y_shape(len(x)), self.y_dtype)]
        if weights is not None:
            wanted.append(("weights", weights, rows, self._dtype))
        for name, array, shape, dtype in wanted:
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{name}: expected shape {shape}, {dtype}, for {len(x)} rows, "
                    f"got {array.shape}, {array.dtype}"
                )
        self._x_shape, self._y_shape, self._rows = x.shape, y.shape, rows
