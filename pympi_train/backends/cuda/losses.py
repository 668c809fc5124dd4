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
LOGITS_BYTES = 128  # of a row, held in a thread's registers, as in losses.cu


def softmax_cross_entropy(logits, labels, weights):
    """Queue the gradient in place; return the weighted loss sum as a Pending.

    See ``numpy.ops``. ``logits`` has any of the four types, ``weights`` the type of the
    arithmetic on them. Reads the logits once, a second time from cache if a row has
    more than 8192 (4096 in float64), and writes them once.
    """
    k, c = logits.shape
    width = row_width(c, wide(logits.dtype))
    grid = max(1, min(-(-k * width // THREADS), MOST_PARTIALS))
    shape = np.int64(k), np.int64(c), np.int32(width)
    return _loss("softmax", logits, (labels, _or_null(weights), *shape), grid)


def logistic_loss(logits, labels, weights):
    """Queue the gradient in place; return the weighted loss sum as a Pending."""
    k = len(logits)
    args = labels, _or_null(weights), np.int64(k)
    return _loss("logistic", logits, args, blocks(k, wide(logits.dtype), MOST_PARTIALS))


def squared_error(outputs, targets, weights):
    """Queue the gradient in place; return the weighted loss sum as a Pending."""
    k, t = outputs.shape
    args = targets, _or_null(weights), np.int64(k), np.int64(t)
    return _loss(
        "squares", outputs, args, blocks(k * t, wide(outputs.dtype), MOST_PARTIALS)
    )


def row_width(c, dtype):
    """Return the number of threads that share a row of ``c`` logits.

    One thread per logit, up to a warp; more if a warp cannot hold them in registers.
    """
    each = LOGITS_BYTES // dtype.itemsize
    width = 1
    while width < min(c, THREADS) and (width < WARP or each * width < c):
        width *= 2
    return width


def _loss(name, outputs, args, grid):
    """Launch the kernel of a loss, and the sum over its blocks."""
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
