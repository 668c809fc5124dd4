"""A model made from a plain function."""

from pympi_train.flat.memory import Layout, empty_block
from pympi_train.layers import checks
from pympi_train.models.base import Model


class FunctionModel(Model):
    """A model made from one function that computes a loss and its gradient.

    Parameters
    ----------
    tensors : sequence of Tensor
        The parameters, in order; ``is_weight=False`` exempts a tensor from L2.
    loss_and_grad : callable
        ``loss_and_grad(params, batch, grads) -> float``. ``params`` and ``grads`` are
        dicts from name to array. It returns the loss *sum* over the rows of ``batch``
        and writes its gradient into the arrays of ``grads``, which are zeros before:
        ``grads["w"][...] = ...``. Both are sums, not means, and without L2. On some
        ranks ``batch`` may have no rows.
    dtype : {"float32", "float64"}
        The dtype of parameters and gradients.
    init : callable, optional
        ``init(params, seed)`` writes the initial parameters; zeros by default.
    predict : callable, optional
        ``predict(params, x) -> ndarray`` of shape (k, n_outputs).
    decide : callable, optional
        ``decide(outputs) -> ndarray`` of class indices, shape (k,); by default that of
        ``Model``.
    n_outputs : int, default 1
        Columns of the array that ``predict`` returns.
    task : {None, "classification", "regression"}
        Selects the metrics besides the loss; needs ``predict`` unless None.

    Raises
    ------
    ValueError
        If an argument is invalid.

    Notes
    -----
    The model keeps a gradient block of its own, because ``loss`` is called before the
    block of the gradient is known. This costs one copy per step.

    Examples
    --------
    >>> import numpy as np
    >>> from pympi_train.flat.memory import Tensor
    >>> from pympi_train.data.batch import Batch
    >>> def half_squares(params, batch, grads):
    ...     error = params["centre"] - batch.x
    ...     grads["centre"][...] = error.sum(axis=0)
    ...     return 0.5 * (error**2).sum()
    >>> tensors = [Tensor("centre", (2,))]
    >>> model = FunctionModel(tensors, half_squares, dtype="float64")
    >>> centre, grad = [np.zeros(2)], [np.empty(2)]
    >>> model.loss(centre, Batch(np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros(2)))
    15.0
    >>> model.gradient(centre, grad)
    >>> grad[0]
    array([-4., -6.])
    """

    def __init__(
        self,
        tensors,
        loss_and_grad,
        *,
        dtype="float32",
        init=None,
        predict=None,
        decide=None,
        n_outputs=1,
        task=None,
    ):
        self.layout = Layout(tensors, checks.float_dtype(dtype))
        self.n_outputs = checks.count("n_outputs", n_outputs)
        self.task = checks.one_of("task", task, (None, "classification", "regression"))
        self._names = [tensor.name for tensor in self.layout.tensors]
        if len(set(self._names)) < len(self._names):
            raise ValueError(f"tensors: expected unique names, got {self._names}")
        if task is not None and predict is None:
            raise ValueError(
                f"predict: expected a function with task {task!r}, got None"
            )
        self._loss_and_grad = loss_and_grad
        self._init, self._predict, self._decide = init, predict, decide
        self._block = empty_block(self.layout)
        self._grads = self.layout.named(self._block)

    def _named(self, params):
        return dict(zip(self._names, params))

    def init(self, params, seed):
        """Write the initial parameters into ``params``."""
        if self._init is None:
            super().init(params, seed)
        else:
            self._init(self._named(params), seed)

    def loss(self, params, batch):
        """Return the loss sum, and store the gradient for ``gradient``.

        Raises
        ------
        ValueError
            If the function did not return a number, or replaced an array of ``grads``
            instead of writing into it.
        """
        self._block[:] = 0
        grads = dict(self._grads)
        loss = self._loss_and_grad(self._named(params), batch, grads)
        for name, view in self._grads.items():
            if grads.get(name) is not view:
                raise ValueError(
                    f"loss_and_grad: expected the gradient inside grads[{name!r}], got "
                    f"another array in its place; write grads[{name!r}][...] = ..."
                )
        try:
            return float(loss)
        except TypeError:
            raise ValueError(
                f"loss_and_grad: expected the loss sum as a number, got {loss!r}"
            ) from None

    def gradient(self, params, grads):
        """Copy the gradient sum of the last ``loss`` into ``grads``."""
        for view, mine in zip(grads, self._grads.values()):
            view[...] = mine

    def predict(self, params, x):
        """Return the outputs for ``x``, shape (k, n_outputs).

        Raises
        ------
        ValueError
            If the model was made without ``predict``.
        """
        if self._predict is None:
            raise ValueError(
                "predict: this FunctionModel was made without one; pass "
                "FunctionModel(..., predict=f) with f(params, x) -> outputs"
            )
        return self._predict(self._named(params), x)

    def decide(self, outputs):
        """Return class indices, shape (k,), given the result of ``predict``."""
        if self._decide is None:
            return super().decide(outputs)
        return self._decide(outputs)
