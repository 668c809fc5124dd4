"""A fully connected layer."""

from pympi_train.backends.csr import SparseRows
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
        Names of the weight and the bias in weight files.
    input_gradient : bool, default True
        Whether ``backward`` returns the gradient with respect to the input; the
        first layer of a model does not need it.
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
    The layer keeps neither parameters nor gradients nor the results of a forward: each
    call receives them as arguments. It keeps workspaces for as many passes as were in
    flight at once. They grow to the largest batch seen. After that, no call allocates
    memory in proportion to the batch or the layer.
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
        """Set the backend and the dtype of the computation.

        Before the first call they are ``numpy.ops`` and the layer's own dtype.
        """
        # Look functions up once: such overhead dominates a small step.
        bias = len(self.tensors) > 1
        self._matmul = ops.matmul
        self._sparse = ops.sparse
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
        self._spare, self._input_delta = [], None  # Saved objects for reuse

    def forward(self, x, params):
        """Return ``a(x W + b)``, and the values that ``backward`` needs.

        Parameters
        ----------
        x : ndarray or SparseRows, shape (k, n_in)
            Kept, not copied, until ``backward``; k may be 0.
        params : sequence of ndarray
            The views of ``tensors``.

        Returns
        -------
        output : ndarray, shape (k, n_out)
            In a workspace.
        saved : Saved
            Several may be in flight: the caller owns the workspaces until ``drop``.
        """
        saved = self._spare.pop() if self._spare else Saved()
        if len(x) != saved.n_rows:
            self._resize(saved, len(x))
        saved.input, output = x, saved.output
        if isinstance(x, SparseRows):
            self._sparse.csr_matmul(x, params[0], output)
        else:
            self._matmul(x, params[0], output)  # (k, n_in) @ (n_in, n_out)
        if self._activate is None:
            if self._add is not None:
                self._add(output, params[1])
        elif self._keeps_input:
            self._activate(output, params[1], saved.pre)
        else:
            self._activate(output, params[1])
        return output, saved

    def backward(self, delta, saved, params, grads):
        """Write the gradients of a ``forward``.

        Parameters
        ----------
        delta : ndarray, shape (k, n_out)
            Gradient of the loss sum with respect to the output. If the layer has an
            activation, it is overwritten with the gradient with respect to the
            activation's input.
        saved : Saved
            Returned by that ``forward``.
        params, grads : sequence of ndarray
            The views of ``tensors``; those of ``grads`` are overwritten.

        Returns
        -------
        ndarray of shape (k, n_in), or None
            The gradient with respect to ``x``, in a workspace, valid until the next
            call.
        """
        if self._derive is not None:
            self._derive(delta, saved.pre)
        if isinstance(saved.input, SparseRows):
            self._sparse.csr_transposed_matmul(saved.input, delta, grads[0])
        else:
            self._matmul(saved.input.T, delta, grads[0])  # (n_in, k) @ (k, n_out)
        if self._column_sums is not None:
            self._column_sums(delta, grads[1])
        if not self._input_gradient:
            return None
        if self._input_delta is None or len(self._input_delta) != len(delta):
            self._resize_delta(len(delta))
        # (k, n_out) @ (n_out, n_in)
        self._matmul(delta, params[0].T, self._input_delta)
        return self._input_delta

    def drop(self, saved):
        """Release the workspaces of ``saved`` for reuse."""
        saved.input = None
        self._spare.append(saved)

    def _resize(self, saved, n_rows):
        """Set workspaces to ``n_rows`` rows; allocate larger ones if necessary."""
        if n_rows > saved.n_allocated:
            n_allocated = _rounded_up(n_rows)
            shape = n_allocated, self.n_out
            saved.output_buffer = self._empty(shape, self._dtype)
            if self._keeps_input:
                saved.pre_buffer = self._empty(shape, self._dtype)
            saved.n_allocated = n_allocated
        saved.output = saved.pre = saved.output_buffer[:n_rows]
        if self._keeps_input:
            saved.pre = saved.pre_buffer[:n_rows]
        saved.n_rows = n_rows

    def _resize_delta(self, n_rows):
        if self._input_delta is None or n_rows > len(self._delta_buffer):
            shape = _rounded_up(n_rows), self.n_in
            self._delta_buffer = self._empty(shape, self._dtype)
        self._input_delta = self._delta_buffer[:n_rows]


class Saved:
    """The results of a layer's forward that its backward needs, in workspaces.

    Attributes
    ----------
    input : ndarray or SparseRows, shape (k, n_in)
    output : ndarray, shape (k, n_out)
    pre : ndarray, shape (k, n_out)
        The argument of the activation's derivative: its input or its output.
    """

    __slots__ = (
        "input",
        "output",
        "pre",
        "n_rows",
        "n_allocated",
        "output_buffer",
        "pre_buffer",
    )

    def __init__(self):
        self.n_rows = self.n_allocated = -1


def _rounded_up(n_rows):
    """Return ``n_rows`` with a margin, as shares of batches differ by a few rows."""
    return n_rows + n_rows // 8
