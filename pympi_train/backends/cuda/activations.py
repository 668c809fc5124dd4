"""Bias, activations and their gradients on the device: ``kernels/activations.cu``."""

import numpy as np

from pympi_train.backends.cuda.device import device, empty
from pympi_train.backends.cuda.launch import (
    MOST_PARTIALS,
    NULL,
    blocks,
    launch,
    require_flat,
    wide,
)

COLUMNS = 32  # columns per block of column_sums
ROWS = 512  # rows per block; larger batches are summed in two steps


def bias_add(z, b):
    """``z <- z + b`` in place; see ``numpy.ops``."""
    _bias("bias_add", z, b, NULL)


def bias_relu(z, b):
    """``z <- max(z + b, 0)`` in place."""
    _bias("bias_relu", z, b, NULL)


def bias_tanh(z, b):
    """``z <- tanh(z + b)`` in place."""
    _bias("bias_tanh", z, b, NULL)


def bias_gelu(z, b, pre):
    """``pre <- z + b`` and ``z <- gelu(pre)`` in place."""
    _bias("bias_gelu", z, b, pre)


def relu_gradient(delta, out):
    """``delta <- delta (out > 0)`` in place."""
    _slope("relu_gradient", delta, out)


def tanh_gradient(delta, out):
    """``delta <- delta (1 - out^2)`` in place."""
    _slope("tanh_gradient", delta, out)


def gelu_gradient(delta, pre):
    """``delta <- delta gelu'(pre)`` in place."""
    _slope("gelu_gradient", delta, pre)


def column_sums(delta, out):
    """``out <- sum over rows of delta``: the gradient of a bias. Reads delta once."""
    require_flat(delta=delta, out=out)
    k, w = delta.shape
    size = max(ROWS, -(-k // MOST_PARTIALS))
    n_parts = max(1, -(-k // size))
    partials = _partials(n_parts * w, wide(delta.dtype)) if n_parts > 1 else NULL
    shape = np.int64(k), np.int64(w), np.int64(size)
    grid = (max(1, -(-w // COLUMNS)), n_parts)
    args = (delta, *shape, partials, out)
    launch("activations", "column_partials", delta.dtype, grid, args)
    if n_parts > 1:
        args = partials, np.int64(n_parts), np.int64(w), out
        launch("activations", "column_finish", delta.dtype, grid[0], args)


def _bias(name, z, b, pre):
    require_flat(z=z, b=b)
    args = z, b, pre, np.int64(z.size), np.int64(z.shape[1])
    launch("activations", name, z.dtype, blocks(z.size, z.dtype), args)


def _slope(name, delta, kept):
    require_flat(delta=delta, kept=kept)
    args = delta, kept, np.int64(delta.size)
    launch("activations", name, delta.dtype, blocks(delta.size, delta.dtype), args)


_kept: dict = {}


def _partials(size, dtype):
    """Return memory for partial sums, which is reused and grows if necessary."""
    key = device().index, dtype
    if key not in _kept or _kept[key].size < size:
        _kept[key] = empty(size, dtype)
    return _kept[key]
