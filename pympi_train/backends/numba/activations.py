"""Bias, activations and their gradients, compiled and in place.

tanh is NumPy's ufunc between two compiled passes: it is faster than the scalar function
that a compiled loop would call, and gives the same bits as the NumPy backend.
"""

import numpy as np

from pympi_train.backends.blocks import flat_blocks, row_blocks, scratch
from pympi_train.backends.numba.jit import kernel
from pympi_train.backends.numpy import activations as numpy_activations
from pympi_train.backends.numpy.activations import GELU_1, GELU_3, SUM_ROWS


def bias_add(z, b):
    """Add the bias to each row; see ``numpy.ops``."""
    _bias_add(z, b)


def bias_relu(z, b):
    """``z <- max(z + b, 0)``; see ``numpy.ops``."""
    _bias_relu(z, b)


def bias_tanh(z, b):
    """``z <- tanh(z + b)``; see ``numpy.ops``."""
    for rows in row_blocks(z):
        part = z[rows]
        _bias_add(part, b)
        np.tanh(part, out=part)


def bias_gelu(z, b, pre):
    """``pre <- z + b``, ``z <- gelu(pre)``; see ``numpy.ops``."""
    for rows in row_blocks(z):
        out, x = z[rows], pre[rows]
        _gelu_angle(out, b, x, GELU_1, GELU_3)
        np.tanh(out, out=out)
        _gelu(out, x)


def relu_gradient(delta, out):
    """``delta <- delta (out > 0)``; see ``numpy.ops``."""
    _relu_gradient(delta, out)


def tanh_gradient(delta, out):
    """``delta <- delta (1 - out^2)``; see ``numpy.ops``."""
    _tanh_gradient(delta, out)


def gelu_gradient(delta, pre):
    """``delta <- delta gelu'(pre)``; see ``numpy.ops``."""
    delta, pre = delta.reshape(-1), pre.reshape(-1)
    for block in flat_blocks(delta):
        d, x = delta[block], pre[block]
        t = scratch(d.dtype, d.size)
        _gelu_angle_flat(x, t, GELU_1, GELU_3)
        np.tanh(t, out=t)
        _gelu_gradient(d, x, t, GELU_1, 3.0 * GELU_3)


def column_sums(delta, out):
    """``out <- sum over rows of delta``; see ``numpy.ops``."""
    if out.size == 1:  # a single column: NumPy's sum is vectorised, ours is not
        numpy_activations.column_sums(delta, out)
    else:
        _column_sums(delta, out, scratch(out.dtype, out.size), SUM_ROWS)


@kernel
def _bias_add(z, b):
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] += b[j]


@kernel
def _bias_relu(z, b):
    zero = z.dtype.type(0.0)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            x = z[i, j] + (b[j] + zero)  # never -0.0, as in numpy.ops
            z[i, j] = zero if x < zero else x


@kernel
def _gelu_angle(z, b, pre, c1, c3):
    T = z.dtype.type
    linear, cubic = T(c1), T(c3)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            x = z[i, j] + b[j]
            pre[i, j] = x
            z[i, j] = (x * x * cubic + linear) * x


@kernel
def _gelu(t, pre):
    T = t.dtype.type
    one, half = T(1.0), T(0.5)
    for i in range(t.shape[0]):
        for j in range(t.shape[1]):
            t[i, j] = (t[i, j] + one) * half * pre[i, j]


@kernel
def _relu_gradient(delta, out):
    T = delta.dtype.type
    zero, one = T(0.0), T(1.0)
    for i in range(delta.shape[0]):
        for j in range(delta.shape[1]):
            # A product, not an assignment, so that NaN and infinity give NaN.
            delta[i, j] *= one if out[i, j] > zero else zero


@kernel
def _tanh_gradient(delta, out):
    one = delta.dtype.type(1.0)
    for i in range(delta.shape[0]):
        for j in range(delta.shape[1]):
            delta[i, j] *= one - out[i, j] * out[i, j]


@kernel
def _gelu_angle_flat(pre, angle, c1, c3):
    T = pre.dtype.type
    linear, cubic = T(c1), T(c3)
    for i in range(pre.size):
        angle[i] = (pre[i] * pre[i] * cubic + linear) * pre[i]


@kernel
def _gelu_gradient(delta, pre, t, c1, triple):
    T = delta.dtype.type
    linear, cubic, one, half = T(c1), T(triple), T(1.0), T(0.5)
    for i in range(delta.size):
        slope = (pre[i] * pre[i] * cubic + linear) * pre[i] * (one - t[i]) + one
        delta[i] *= slope * ((t[i] + one) * half)


@kernel
def _column_sums(delta, out, part, step):
    # Partial sums of ``step`` rows: with 60,000 rows of float32, a single running sum
    # would lose two digits.
    out[:] = 0.0
    for start in range(0, delta.shape[0], step):
        part[:] = 0.0
        for i in range(start, min(start + step, delta.shape[0])):
            for j in range(out.size):
                part[j] += delta[i, j]
        for j in range(out.size):
            out[j] += part[j]
