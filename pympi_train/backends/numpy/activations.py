"""Bias, activations and their gradients with NumPy, in place, block by block."""

import math

import numpy as np

from pympi_train.backends.blocks import flat_blocks, quiet, row_blocks, scratch, typed

# gelu(x) = x/2 (1 + tanh(GELU_1 x + GELU_3 x^3))
GELU_1 = math.sqrt(2.0 / math.pi)
GELU_3 = 0.044715 * GELU_1
SUM_ROWS = 1_024  # rows per partial sum; the partial sums are then added up


@quiet
def bias_add(z, b):
    """Add the bias ``b``, shape (w,), to each row of ``z``, shape (k, w), in place."""
    np.add(z, b, out=z)


@quiet
def bias_relu(z, b):
    """``z <- max(z + b, 0)`` in place, (k, w) and (w,); NaN passes through."""
    bias = scratch(b.dtype, b.size)
    np.add(b, 0.0, out=bias)  # no -0.0, because max(-0.0, 0.0) may be either
    for rows in row_blocks(z):
        part = z[rows]
        np.add(part, bias, out=part)
        np.maximum(part, 0.0, out=part)


@quiet
def bias_tanh(z, b):
    """``z <- tanh(z + b)`` in place, (k, w) and (w,)."""
    for rows in row_blocks(z):
        part = z[rows]
        np.add(part, b, out=part)
        np.tanh(part, out=part)


@quiet
def bias_gelu(z, b, pre):
    r"""``pre <- z + b`` and ``z <- gelu(pre)`` in place, in the tanh form.

    .. math::
        \mathrm{gelu}(x) = \tfrac{x}{2} \left(1 + \tanh\!\left(
            \sqrt{2/\pi}\,(x + 0.044715\,x^3)\right)\right)

    Parameters
    ----------
    z, pre : ndarray, shape (k, w)
        ``z`` is input and output; ``pre`` keeps input plus bias for the gradient.
    b : ndarray, shape (w,)
        The bias.

    References
    ----------
    .. [1] D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units (GELUs)", 2016.
       arXiv:1606.08415.
    """
    c1, c3, one, half = typed(z.dtype, GELU_1, GELU_3, 1.0, 0.5)
    for rows in row_blocks(z):
        out, x = z[rows], pre[rows]
        np.add(out, b, out=x)
        _gelu_angle(x, c1, c3, out)
        np.tanh(out, out=out)
        np.add(out, one, out=out)
        np.multiply(out, half, out=out)
        np.multiply(out, x, out=out)


@quiet
def relu_gradient(delta, out):
    """``delta <- delta (out > 0)`` in place; both (k, w)."""
    delta, out = delta.reshape(-1), out.reshape(-1)
    for block in flat_blocks(delta):
        d = delta[block]
        alive = scratch(np.dtype(bool), d.size)
        np.greater(out[block], 0.0, out=alive)
        np.multiply(d, alive, out=d)


@quiet
def tanh_gradient(delta, out):
    """``delta <- delta (1 - out^2)`` in place; both (k, w)."""
    delta, out = delta.reshape(-1), out.reshape(-1)
    for block in flat_blocks(delta):
        d, y = delta[block], out[block]
        slope = scratch(d.dtype, d.size)
        np.multiply(y, y, out=slope)
        np.subtract(1.0, slope, out=slope)
        np.multiply(d, slope, out=d)


@quiet
def gelu_gradient(delta, pre):
    r"""``delta <- delta gelu'(pre)`` in place; both (k, w).

    With :math:`t = \tanh(c_1 x + c_3 x^3)`, the derivative is
    :math:`\tfrac{1}{2}(1 + t)\,(1 + x\,(1 - t)\,(c_1 + 3 c_3 x^2))`.
    """
    c1, c3, triple, one, half = typed(
        delta.dtype, GELU_1, GELU_3, 3.0 * GELU_3, 1.0, 0.5
    )
    delta, pre = delta.reshape(-1), pre.reshape(-1)
    for block in flat_blocks(delta):
        d, x = delta[block], pre[block]
        t, slope, rest = (scratch(d.dtype, d.size, slot) for slot in range(3))
        _gelu_angle(x, c1, c3, t)
        np.tanh(t, out=t)
        np.multiply(x, x, out=slope)
        np.multiply(slope, triple, out=slope)
        np.add(slope, c1, out=slope)
        np.multiply(slope, x, out=slope)
        np.subtract(one, t, out=rest)
        np.multiply(slope, rest, out=slope)
        np.add(slope, one, out=slope)
        np.add(t, one, out=t)
        np.multiply(t, half, out=t)
        np.multiply(slope, t, out=slope)
        np.multiply(d, slope, out=d)


def _gelu_angle(x, c1, c3, out):
    """``out <- (c3 x^2 + c1) x``."""
    np.multiply(x, x, out=out)
    np.multiply(out, c3, out=out)
    np.add(out, c1, out=out)
    np.multiply(out, x, out=out)


@quiet
def column_sums(delta, out):
    """``out <- sum over rows of delta``: the gradient of a bias.

    Parameters
    ----------
    delta : ndarray, shape (k, w)
        May have no rows; ``out`` is then zero.
    out : ndarray, shape (w,)
        Overwritten.
    """
    np.add.reduce(delta[:SUM_ROWS], axis=0, out=out)
    for start in range(SUM_ROWS, len(delta), SUM_ROWS):
        part = scratch(out.dtype, out.size)
        np.add.reduce(delta[start : start + SUM_ROWS], axis=0, out=part)
        np.add(out, part, out=out)
