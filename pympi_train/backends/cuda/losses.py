"""Losses and their gradients on the device: ``kernels/losses.cu``."""

from functools import cache

import numpy as np

from pympi_train.backends.cuda.device import Pending, device, empty
from pympi_train.backends.cuda.launch import (
    MOST_PARTIALS,
    NULL,
    THREADS,
    blocks,
    launch,
    require_flat,
    wide,
)

WARP = 32
LOGITS_BYTES = 128  # of a row that a thread has in registers, as in losses.cu


def softmax_cross_entropy(logits, labels, weights):
    """Queue the gradient in place; return the weighted loss sum, to come.

    See ``numpy.ops``. ``logits`` of any of the four types; ``weights`` of the type that
    arithmetic on them is done in. Reads the logits once, those of rows of more than
    8192 (4096 in float64) once more from cache, and writes them once.
    """
    k, c = logits.shape
    width = row_width(c, wide(logits.dtype))
    grid = max(1, min(-(-k * width // THREADS), MOST_PARTIALS))
    shape = np.int64(k), np.int64(c), np.int32(width)
    return _loss("softmax", logits, (labels, _or_null(weights), *shape), grid)


def logistic_loss(logits, labels, weights):
    """Queue the gradient in place; return the weighted loss sum, to come."""
    k = len(logits)
    args = labels, _or_null(weights), np.int64(k)
    return _loss("logistic", logits, args, blocks(k, wide(logits.dtype), MOST_PARTIALS))


def squared_error(outputs, targets, weights):
    """Queue the gradient in place; return the weighted loss sum, to come."""
    k, t = outputs.shape
    args = targets, _or_null(weights), np.int64(k), np.int64(t)
    return _loss(
        "squares", outputs, args, blocks(k * t, wide(outputs.dtype), MOST_PARTIALS)
    )


def row_width(c, dtype):
    """Return how many threads share a row of ``c`` logits: up to a warp one for each,
    and more where they would not have all logits in registers."""
    each = LOGITS_BYTES // dtype.itemsize
    width = 1
    while width < min(c, THREADS) and (width < WARP or each * width < c):
        width *= 2
    return width


def _loss(name, outputs, args, grid):
    """Launch a loss and the sum of its blocks' shares."""
    require_flat(outputs=outputs)
    partials, found = _buffers(device().index)
    launch("losses", name, outputs.dtype, grid, (outputs, *args, partials))
    last = partials, np.int32(grid), found
    launch("losses", "sum_finish", outputs.dtype, 1, last, typed=False)
    return Pending(found)


def _or_null(array):
    return NULL if array is None else array


@cache
def _buffers(index):
    return empty(MOST_PARTIALS, np.float64), empty(1, np.float64)
