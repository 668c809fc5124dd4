"""Losses and their gradients at the output with NumPy, in place, block by block."""

import numpy as np

from pympi_train.backends.blocks import flat_blocks, quiet, row_blocks, scratch

DOUBLE = np.dtype(np.float64)
BOOL = np.dtype(bool)


@quiet
def softmax_cross_entropy(logits, labels, weights):
    r"""Return the weighted loss sum; the gradient overwrites the logits.

    .. math::
        \sum_i w_i \left(\log \sum_j e^{z_{ij}} - z_{i y_i}\right), \qquad
        z_{ij} \leftarrow w_i \left(\frac{e^{z_{ij}}}{\sum_l e^{z_{il}}}
            - [j = y_i]\right)

    Parameters
    ----------
    logits : ndarray, shape (k, c)
        :math:`z`. The maximum of each row is subtracted first, so that nothing
        overflows. NaN gives a loss of NaN.
    labels : ndarray of intp, shape (k,)
        :math:`y`, in [0, c).
    weights : ndarray, shape (k,), or None
        :math:`w`, in the dtype of the logits; None means that all are 1.

    Returns
    -------
    float
        The sum, in float64.
    """
    total = 0.0
    for rows in row_blocks(logits):
        z, y = logits[rows], labels[rows]
        weight = 1.0 if weights is None else weights[rows]
        row = np.arange(len(z))
        top = scratch(z.dtype, len(z), slot=1)
        np.maximum.reduce(z, axis=1, out=top)
        np.subtract(z, top[:, None], out=z)
        picked = z[row, y]
        np.exp(z, out=z)
        sums = np.add.reduce(z, axis=1, out=top)
        losses = np.log(sums, dtype=DOUBLE)
        losses -= picked
        losses *= weight
        total += float(np.add.reduce(losses))
        np.divide(weight, sums, out=sums)
        np.multiply(z, sums[:, None], out=z)
        z[row, y] -= weight
    return total


@quiet
def logistic_loss(logits, labels, weights):
    r"""Return the weighted loss sum; the gradient overwrites the logits.

    .. math::
        \sum_i w_i \left(\log(1 + e^{z_i}) - y_i z_i\right), \qquad
        z_i \leftarrow w_i \left(\frac{1}{1 + e^{-z_i}} - y_i\right)

    Parameters
    ----------
    logits : ndarray, shape (k, 1)
        :math:`z`. Only :math:`e^{-|z|}` is computed, so that nothing overflows.
    labels : ndarray, shape (k,)
        :math:`y`, 0 or 1, in the dtype of the logits.
    weights : ndarray, shape (k,), or None
        :math:`w`, in the dtype of the logits; None means that all are 1.

    Returns
    -------
    float
        The sum, in float64.
    """
    flat, total = logits.reshape(-1), 0.0
    for block in flat_blocks(flat):
        z, y = flat[block], labels[block]
        small, loss, hinge, term = (scratch(z.dtype, z.size, i) for i in range(4))
        np.absolute(z, out=small)
        np.negative(small, out=small)
        np.exp(small, out=small)
        np.log1p(small, out=loss)
        np.maximum(z, 0.0, out=hinge)
        np.multiply(y, z, out=term)
        np.subtract(hinge, term, out=hinge)  # first, because it is exact: y is 0 or 1
        np.add(loss, hinge, out=loss)
        if weights is not None:
            np.multiply(loss, weights[block], out=loss)
        total += float(np.add.reduce(loss, dtype=DOUBLE))
        _sigmoid(z, small)
        np.subtract(z, y, out=z)
        if weights is not None:
            np.multiply(z, weights[block], out=z)
    return total


def _sigmoid(z, small):
    """``z <- (1 if z >= 0 else small) / (1 + small)``, with small = exp(-|z|)."""
    positive = scratch(BOOL, z.size)
    np.greater_equal(z, 0.0, out=positive)
    np.maximum(small, positive, out=z)  # small <= 1; NaN stays NaN
    np.add(small, 1.0, out=small)
    np.divide(z, small, out=z)


@quiet
def squared_error(outputs, targets, weights):
    r"""Return the weighted loss sum; the gradient overwrites the outputs.

    .. math::
        \sum_i \frac{w_i}{2} \sum_j (h_{ij} - y_{ij})^2, \qquad
        h_{ij} \leftarrow w_i (h_{ij} - y_{ij})

    Parameters
    ----------
    outputs, targets : ndarray, shape (k, t)
        :math:`h` and :math:`y`, of one dtype.
    weights : ndarray, shape (k,), or None
        :math:`w`, in the dtype of the outputs; None means that all are 1.

    Returns
    -------
    float
        The sum, in float64.
    """
    total = 0.0
    for rows in row_blocks(outputs):
        h = outputs[rows]
        np.subtract(h, targets[rows], out=h)
        square = scratch(DOUBLE, h.size).reshape(h.shape)
        np.copyto(square, h)
        np.multiply(square, square, out=square)
        if weights is not None:
            column = weights[rows, None]
            np.multiply(square, column, out=square)
            np.multiply(h, column, out=h)
        total += float(np.add.reduce(square, axis=None))
    return 0.5 * total
