"""A fully connected layer."""

from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.flat.memory import Tensor
from pympi_train.layers import checks
from pympi_train.layers.activations import ACTIVATIONS


class Dense:
    r"""A fully connected layer, :math:`h = a(x W + b)`.

    With :math:`\delta = \partial L / \partial (x W + b)`, summed over the rows,

    .. math::
        \frac{\partial L}{\partial W} = x^T \delta, \qquad
        \frac{\partial L}{\partial b} = \sum_i \delta_i, \qquad
        \frac{\partial L}{\partial x} = \delta W^T.

    Parameters
    ----------
    n_in, n_out : int
        Columns of the input and of the output.
    activation : {None, "relu", "tanh", "gelu"}
        None for the identity.
    bias : bool, default True
        An activation needs one: it is computed together with the bias.
    names : tuple of str
        Of the weight and the bias in weight files.
    input_gradient : bool, default True
        Whether ``backward`` returns the gradient with respect to the input; the
        first layer of a model has no use for it.
    dtype : str or dtype
        float32 or float64.

    Attributes
    ----------
    tensors : tuple of Tensor
        The weight, shape (n_in, n_out), and the bias, shape (n_out,), if there is one.

    Raises
    ------
    ValueError
        If a width is not positive, the activation unknown or without a bias.

    Notes
    -----
    The layer keeps its outputs, but neither parameters nor gradients: both are handed
    in for each call. Workspaces grow to the largest batch seen; after that, no call
    allocates memory in proportion to the batch or the layer.
    """

    def __init__(
        self,
        n_in,
        n_out,
        activation=None,
        *,
        bias=True,
        names=("weight", "bias"),
        input_gradient=True,
        dtype,
    ):
        self.n_in = checks.count("n_in", n_in)
        self.n_out = checks.count("n_out", n_out)
        checks.one_of("activation", activation, (None, *ACTIVATIONS))
        if activation is not None and not bias:
            raise ValueError(
                f"bias: expected True with activation {activation!r}, got {bias!r}"
            )
        self.activation = activation
        self.tensors = (Tensor(names[0], (self.n_in, self.n_out)),)
        if bias:
            self.tensors += (Tensor(names[1], (self.n_out,), is_weight=False),)
        self._input_gradient = input_gradient
        self.use(numpy_ops, checks.float_dtype(dtype))

    def use(self, ops, dtype):
        """Compute with this backend, in ``dtype``, from now on.

        ``numpy.ops`` and the layer's own dtype until it is called.
        """
        # Functions are looked up once: a small step is mostly such overhead.
        bias = len(self.tensors) > 1
        self._matmul = ops.matmul
        self._column_sums = ops.column_sums if bias else None
        self._add = ops.bias_add if bias else None
        self._activate = self._derive = None
        self._keeps_input = False
        if self.activation is not None:
            kind = ACTIVATIONS[self.activation]
            self._activate = getattr(ops, kind.forward)
            self._derive = getattr(ops, kind.backward)
            self._keeps_input = kind.keeps_input
        self._empty, self._dtype = ops.empty, dtype
        self._n_allocated = -1
        self._resize(0)

    def _resize(self, n_rows):
        """Point the workspaces at ``n_rows`` rows, larger ones if need be."""
        if n_rows > self._n_allocated:
            # Some more: a rank's share of a batch differs by a few rows.
            n_allocated = n_rows + n_rows // 8
            self._output_buffer = self._empty((n_allocated, self.n_out), self._dtype)
            if self._keeps_input:
                self._pre_buffer = self._empty((n_allocated, self.n_out), self._dtype)
            if self._input_gradient:
                self._delta_buffer = self._empty((n_allocated, self.n_in), self._dtype)
            self._n_allocated = n_allocated
        self._output = self._output_buffer[:n_rows]
        self._pre = self._pre_buffer[:n_rows] if self._keeps_input else self._output
        self._input_delta = (
            self._delta_buffer[:n_rows] if self._input_gradient else None
        )
        self._n_rows = n_rows

    def forward(self, x, params):
        """Return ``a(x W + b)``, shape (k, n_out), in a workspace.

        Parameters
        ----------
        x : ndarray, shape (k, n_in)
            Kept, not copied, until ``backward``; k may be 0.
        params : sequence of ndarray
            The views of ``tensors``.
        """
        if len(x) != self._n_rows:
            self._resize(len(x))
        self._input = x
        output = self._output
        self._matmul(x, params[0], output)  # (k, n_in) @ (n_in, n_out)
        if self._activate is None:
            if self._add is not None:
                self._add(output, params[1])
        elif self._keeps_input:
            self._activate(output, params[1], self._pre)
        else:
            self._activate(output, params[1])
        return output

    def backward(self, delta, params, grads):
        """Write the gradients of the last ``forward``.

        Parameters
        ----------
        delta : ndarray, shape (k, n_out)
            Gradient of the loss sum with respect to the output; where there is an
            activation it is overwritten by the gradient with respect to its input.
        params, grads : sequence of ndarray
            The views of ``tensors``; those of ``grads`` are overwritten.

        Returns
        -------
        ndarray of shape (k, n_in), or None
            The gradient with respect to ``x``, in a workspace.
        """
        if self._derive is not None:
            self._derive(delta, self._pre)
        self._matmul(self._input.T, delta, grads[0])  # (n_in, k) @ (k, n_out)
        if self._column_sums is not None:
            self._column_sums(delta, grads[1])
        if self._input_delta is not None:
            # (k, n_out) @ (n_out, n_in)
            self._matmul(delta, params[0].T, self._input_delta)
        return self._input_delta
