"""A layer that looks up a learned vector for each token."""

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.flat.memory import Tensor
from pympi_train.layers import checks


class Embedding:
    r"""A table of vectors, one for each token.

    With the table :math:`E`, the output for a row of tokens :math:`t_1 \dots t_c` is
    the concatenation :math:`h = [E_{t_1}, \dots, E_{t_c}]`. With :math:`\delta_j` the
    part of :math:`\partial L / \partial h` that belongs to :math:`t_j`,

    .. math::
        \frac{\partial L}{\partial E_t}
            = \sum_{\text{rows}} \sum_{j: t_j = t} \delta_j .

    Parameters
    ----------
    n_tokens : int
        Rows of the table.
    width : int
        Length of a vector, d.
    n_columns : int
        Tokens of an input row, c.
    name : str
        Name of the table in weight files.
    dtype : str or dtype
        float32 or float64.

    Attributes
    ----------
    tensors : tuple of Tensor
        The table, shape (n_tokens, d).
    n_in, n_out : int
        Columns of the input, c, and of the output, c d.

    Raises
    ------
    ValueError
        If a count is not positive.

    Notes
    -----
    The gradient of the table is the product :math:`X^T \delta` with the sparse matrix
    :math:`X` that has a single 1 in each row, in the token's column. The backend's
    product with sparse rows computes it: each element is summed in the order of the
    rows, on any number of threads. For a GPU, the host sorts the tokens of a batch.
    """

    def __init__(self, n_tokens, width, n_columns, *, name="embedding", dtype):
        self.n_tokens = checks.count("n_tokens", n_tokens)
        self.width = checks.count("width", width)
        self.n_in = checks.count("n_columns", n_columns)
        self.n_out = self.n_in * self.width
        self.tensors = (Tensor(name, (self.n_tokens, self.width)),)
        self.use(numpy_ops, checks.float_dtype(dtype))

    def use(self, ops, dtype):
        """Set the backend and the dtype of the computation."""
        self._take_rows, self._empty = ops.take_rows, ops.empty
        self._add_rows = ops.sparse.csr_transposed_matmul
        self._from_host = self._for_gradient = None
        if ops.ON_DEVICE:
            self._from_host = ops.from_host
            self._for_gradient = ops.sparse.csr_for_gradient
        self._dtype, self._spare = dtype, []
        self._pointers = self._ones = np.empty(0)

    def forward(self, x, params):
        """Return the vectors of tokens, and the values that ``backward`` needs.

        Parameters
        ----------
        x : ndarray of intp, shape (k, c)
            Tokens in [0, n_tokens), not checked, in host memory. Kept, not copied,
            until ``backward``; k may be 0.
        params : sequence of ndarray
            The views of ``tensors``.

        Returns
        -------
        output : ndarray, shape (k, c d)
            In a workspace.
        saved : Lookup
            Several may be in flight: the caller owns the workspace until ``drop``.
        """
        saved = self._spare.pop() if self._spare else Lookup()
        k = len(x)
        if saved.room is None or k > len(saved.room):
            saved.room = self._empty((k + k // 8, self.n_out), self._dtype)
        saved.input, output = x, saved.room[:k]
        vectors = output.reshape(k * self.n_in, self.width)
        self._take_rows(params[0], self._there(x.reshape(-1)), vectors)
        return output, saved

    def backward(self, delta, saved, params, grads):
        """Overwrite ``grads[0]`` with the gradient of the table.

        Parameters
        ----------
        delta : ndarray, shape (k, c d)
            Gradient of the loss sum with respect to the output.
        saved : Lookup
            Returned by that ``forward``.
        params, grads : sequence of ndarray
            The views of ``tensors``.
        """
        one_hot = self._one_hot(saved.input.reshape(-1))
        self._add_rows(one_hot, delta.reshape(len(one_hot), self.width), grads[0])

    def drop(self, saved):
        """Release the workspace of ``saved`` for reuse."""
        saved.input = None
        self._spare.append(saved)

    def _there(self, tokens):
        """Return tokens in the memory of the backend."""
        if self._from_host is None:
            return tokens
        there = self._empty(tokens.shape, tokens.dtype)
        self._from_host(tokens, there)
        return there

    def _one_hot(self, tokens):
        """Return sparse rows with a 1 in the column of each token."""
        n = len(tokens)
        if n >= len(self._pointers):
            self._pointers = np.arange(n + n // 8 + 1)
            self._ones = np.ones(len(self._pointers), self._dtype)
        entries = tokens.astype(np.int32), self._ones[:n]
        rows = CSR.of_pointers(self._pointers[: n + 1], *entries, self.n_tokens)
        return rows if self._for_gradient is None else self._for_gradient(rows)


class Lookup:
    """The tokens of a forward, and the workspace of its output.

    Attributes
    ----------
    input : ndarray of intp, shape (k, c)
    room : ndarray, at least k rows
    """

    __slots__ = ("input", "room")

    def __init__(self):
        self.input = self.room = None
