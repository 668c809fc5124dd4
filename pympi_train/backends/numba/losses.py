"""Losses and their gradients at the output, compiled, in place."""

import math

import numpy as np

from pympi_train.backends.blocks import block_size, flat_blocks, row_blocks, scratch
from pympi_train.backends.numba.jit import helper, kernel


def softmax_cross_entropy(logits, labels, weights):
    """Return the weighted loss sum; logits become the gradient. See ``numpy.ops``."""
    if logits.size <= block_size(logits.dtype):  # a single block
        return _softmax_block(logits, labels, weights)
    total = 0.0
    for rows in row_blocks(logits):
        weight = None if weights is None else weights[rows]
        total += _softmax_block(logits[rows], labels[rows], weight)
    return total


def _softmax_block(z, labels, weights):
    dtype, n = z.dtype, len(z)
    sums, picked = scratch(dtype, n), scratch(dtype, n, 1)
    _subtract_largest(z, labels, picked)
    np.exp(z, out=z)
    np.add.reduce(z, axis=1, out=sums)  # in the order of summation of numpy.ops
    return _softmax_finish(z, labels, weights, sums, picked)


def logistic_loss(logits, labels, weights):
    """Return the weighted loss sum; logits become the gradient. See ``numpy.ops``."""
    flat, total = logits.reshape(-1), 0.0
    if flat.size <= block_size(flat.dtype):
        return _logistic_block(flat, labels, weights)
    for block in flat_blocks(flat):
        weight = None if weights is None else weights[block]
        total += _logistic_block(flat[block], labels[block], weight)
    return total


def _logistic_block(z, labels, weights):
    small, loss = scratch(z.dtype, z.size), scratch(z.dtype, z.size, 1)
    _minus_absolute(z, small)
    np.exp(small, out=small)
    np.log1p(small, out=loss)
    return _logistic_finish(z, labels, weights, small, loss)


def squared_error(outputs, targets, weights):
    """Return the weighted loss sum; outputs become the gradient. See ``numpy.ops``."""
    return _squared_error(outputs, targets, weights)


@kernel
def _subtract_largest(z, labels, picked):
    for i in range(z.shape[0]):
        row = z[i]
        top = _largest(row)
        for j in range(row.size):
            row[j] -= top
        picked[i] = row[labels[i]]


@helper
def _largest(row):
    """Return the largest element, or any element if one is NaN."""
    # Four independent maxima, because each comparison waits for the previous one.
    a = b = c = d = row[0]
    fours = row.size // 4 * 4
    for j in range(0, fours, 4):
        a, b = _larger(row[j], a), _larger(row[j + 1], b)
        c, d = _larger(row[j + 2], c), _larger(row[j + 3], d)
    for j in range(fours, row.size):
        a = _larger(row[j], a)
    return _larger(_larger(a, b), _larger(c, d))


@helper
def _larger(x, y):
    return x if x > y else y


@kernel
def _softmax_finish(z, labels, weights, sums, picked):
    one = z.dtype.type(1.0)
    total = 0.0
    for i in range(z.shape[0]):
        weight = one if weights is None else weights[i]
        loss = math.log(np.float64(sums[i])) - np.float64(picked[i])
        total += np.float64(weight) * loss
        factor = weight / sums[i]
        for j in range(z.shape[1]):
            z[i, j] *= factor
        z[i, labels[i]] -= weight
    return total


@kernel
def _minus_absolute(z, out):
    for i in range(z.size):
        out[i] = -abs(z[i])


@kernel
def _logistic_finish(z, labels, weights, small, loss):
    T = z.dtype.type
    zero, one = T(0.0), T(1.0)
    total = 0.0
    for i in range(z.size):
        weight = one if weights is None else weights[i]
        hinge = z[i] if z[i] > zero else zero
        total += np.float64(weight * (loss[i] + (hinge - labels[i] * z[i])))
        sigmoid = (one if z[i] >= zero else small[i]) / (small[i] + one)
        z[i] = weight * (sigmoid - labels[i])
    return total


@kernel
def _squared_error(outputs, targets, weights):
    one = outputs.dtype.type(1.0)
    total = 0.0
    for i in range(outputs.shape[0]):
        weight = one if weights is None else weights[i]
        squares = 0.0
        for j in range(outputs.shape[1]):
            error = outputs[i, j] - targets[i, j]
            squares += np.float64(error) * np.float64(error)
            outputs[i, j] = weight * error
        total += np.float64(weight) * squares
    return 0.5 * total
