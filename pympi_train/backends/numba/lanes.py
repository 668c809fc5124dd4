"""Losses and updates of many trainings at once, compiled; see ``numpy.lanes``."""

import math

import numpy as np

from pympi_train.backends.blocks import block_size, scratch
from pympi_train.backends.numba.jit import helper, kernel

# Factors from 1 to 2 whose product is finite in float64: one logarithm for all.
MAX_FACTORS = 1000


def logistic_lanes(z, y, weights, folds, held, losses):
    """Add loss sums; logits become gradients. See ``numpy.lanes``.

    Without weights, a sum of logarithms is the logarithm of a product, in float64.
    """
    for rows in _row_blocks(z, MAX_FACTORS):
        part = z[rows].reshape(-1, z.shape[1])
        small = scratch(z.dtype, part.size).reshape(part.shape)
        _minus_absolutes(part, small)
        np.exp(small, out=small)
        how = part, y[rows], folds[rows], held, small
        if weights is None:
            _logistic_plain(*how, np.ones(len(held)), losses)
        else:
            logs = scratch(z.dtype, part.size, 1).reshape(part.shape)
            np.log1p(small, out=logs)
            _logistic_weighted(*how, logs, weights[rows], losses)


def softmax_lanes(z, y, weights, folds, held, losses):
    """Add loss sums; logits become gradients. See ``numpy.lanes``."""
    for rows in _row_blocks(z):
        part = z[rows]
        shape, n = part.shape[:2], part.shape[0] * part.shape[1]
        sums, picked = (scratch(z.dtype, n, i).reshape(shape) for i in (0, 1))
        _subtract_largest(part, y[rows], picked)
        np.exp(part, out=part)
        np.add.reduce(part, axis=2, out=sums)  # in NumPy's order of summation
        weight = None if weights is None else weights[rows]
        _softmax_finish(part, y[rows], weight, folds[rows], held, sums, picked, losses)


def squared_lanes(z, y, weights, folds, held, losses):
    """Add loss sums; outputs become gradients. See ``numpy.lanes``."""
    _squared(z, y, weights, folds, held, losses)


def sgd_lanes(params, grad, velocity, *, rate, scale, ridge, momentum, nesterov):
    """Update ``params``, each column with its rate; see ``numpy.lanes``."""
    if velocity is None:
        _sgd(params, grad, rate, scale, ridge)
    else:
        scalars = momentum, nesterov
        _momentum(params, grad, velocity, rate, scale, ridge, *scalars)


def adam_lanes(params, grad, m, v, *, scale, ridge, rate, floor, keep, betas):
    """Update ``params``, each column with its rate; see ``numpy.lanes``."""
    _adam(params, grad, m, v, scale, ridge, rate, floor, keep, *betas)


def adagrad_lanes(params, grad, squares, *, scale, ridge, rate, eps):
    """Update ``params``, each column with its rate; see ``numpy.lanes``."""
    _adagrad(params, grad, squares, scale, ridge, rate, eps)


def count_hits(z, y, weights, hits):
    """Add the weights of rows whose class is predicted; see ``numpy.lanes``."""
    _count_hits(z, y, weights, hits)


def _row_blocks(z, most=None):
    step = max(1, block_size(z.dtype) // max(1, z.shape[1] * z.shape[2]))
    step = step if most is None else min(step, most)
    return [slice(i, i + step) for i in range(0, len(z), step)]


@kernel
def _minus_absolutes(z, out):
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            out[i, j] = -abs(z[i, j])


@kernel
def _logistic_plain(z, labels, folds, held, small, factors, losses):
    T = z.dtype.type
    zero, one = T(0.0), T(1.0)
    for i in range(z.shape[0]):
        y, fold = labels[i], folds[i]
        for j in range(held.size):
            is_held = fold == held[j]
            x, s = z[i, j], small[i, j]
            hinge = (x if x > zero else zero) - y * x
            factors[j] *= 1.0 if is_held else 1.0 + np.float64(s)
            losses[j] += 0.0 if is_held else np.float64(hinge)
            sigmoid = (one if x >= zero else s) / (s + one)
            z[i, j] = zero if is_held else sigmoid - y
    for j in range(held.size):
        losses[j] += math.log(factors[j])


@kernel
def _logistic_weighted(z, labels, folds, held, small, logs, weights, losses):
    T = z.dtype.type
    zero, one = T(0.0), T(1.0)
    for i in range(z.shape[0]):
        y, fold, weight = labels[i], folds[i], weights[i]
        for j in range(held.size):
            is_held = fold == held[j]
            x, s = z[i, j], small[i, j]
            hinge = (x if x > zero else zero) - y * x
            loss = weight * (logs[i, j] + hinge)
            losses[j] += 0.0 if is_held else np.float64(loss)
            sigmoid = (one if x >= zero else s) / (s + one)
            z[i, j] = zero if is_held else weight * (sigmoid - y)


@kernel
def _count_hits(z, labels, weights, hits):
    zero = z.dtype.type(0.0)
    for i in range(z.shape[0]):
        weight = 1.0 if weights is None else np.float64(weights[i])
        label = int(labels[i])
        for j in range(z.shape[1]):
            row = z[i, j]
            found = 1 if row[0] > zero else 0
            if row.size > 1:
                found = 0
                for m in range(1, row.size):
                    found = m if row[m] > row[found] else found
            hits[j] += weight if found == label else 0.0


@kernel
def _subtract_largest(z, labels, picked):
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            row = z[i, j]
            top = row[0]
            for m in range(1, row.size):
                top = row[m] if row[m] > top else top
            for m in range(row.size):
                row[m] -= top
            picked[i, j] = row[labels[i]]


@kernel
def _softmax_finish(z, labels, weights, folds, held, sums, picked, losses):
    T = z.dtype.type
    zero, one = T(0.0), T(1.0)
    for i in range(z.shape[0]):
        weight = one if weights is None else weights[i]
        for j in range(held.size):
            row = z[i, j]
            if folds[i] == held[j]:
                for m in range(row.size):
                    row[m] = zero
                continue
            loss = math.log(np.float64(sums[i, j])) - np.float64(picked[i, j])
            losses[j] += np.float64(weight) * loss
            factor = weight / sums[i, j]
            for m in range(row.size):
                row[m] *= factor
            row[labels[i]] -= weight


@kernel
def _squared(z, y, weights, folds, held, losses):
    T = z.dtype.type
    zero, one = T(0.0), T(1.0)
    for i in range(z.shape[0]):
        weight = one if weights is None else weights[i]
        for j in range(held.size):
            is_held = folds[i] == held[j]
            squares = 0.0
            for m in range(z.shape[2]):
                error = z[i, j, m] - y[i, m]
                squares += np.float64(error) * np.float64(error)
                z[i, j, m] = zero if is_held else weight * error
            losses[j] += 0.0 if is_held else 0.5 * np.float64(weight) * squares


@kernel
def _sgd(params, grad, rate, scale, ridge):
    for i in range(params.shape[0]):
        for j in range(params.shape[1]):
            g = scale[j] * grad[i, j] + ridge[j] * params[i, j]
            params[i, j] -= rate[j] * g


@kernel
def _momentum(params, grad, velocity, rate, scale, ridge, momentum, nesterov):
    mu = params.dtype.type(momentum)
    for i in range(params.shape[0]):
        for j in range(params.shape[1]):
            g = scale[j] * grad[i, j] + ridge[j] * params[i, j]
            v = mu * velocity[i, j] + g
            velocity[i, j] = v
            step = g + mu * v if nesterov else v
            params[i, j] -= rate[j] * step


@kernel
def _adam(params, grad, m, v, scale, ridge, rate, floor, keep, b1, c1, b2, c2):
    T = params.dtype.type
    betas = T(b1), T(c1), T(b2), T(c2)
    for i in range(params.shape[0]):
        for j in range(params.shape[1]):
            p = params[i, j]
            g = scale[j] * grad[i, j] + ridge[j] * p
            m[i, j], v[i, j] = _moments(m[i, j], v[i, j], g, betas)
            step = rate[j] * m[i, j] / (np.sqrt(v[i, j]) + floor[j])
            params[i, j] = keep[j] * p - step


@helper
def _moments(m, v, g, betas):
    b1, c1, b2, c2 = betas
    return b1 * m + c1 * g, b2 * v + c2 * g * g


@kernel
def _adagrad(params, grad, squares, scale, ridge, rate, eps):
    floor = params.dtype.type(eps)
    for i in range(params.shape[0]):
        for j in range(params.shape[1]):
            g = scale[j] * grad[i, j] + ridge[j] * params[i, j]
            squares[i, j] += g * g
            params[i, j] -= rate[j] * g / (np.sqrt(squares[i, j]) + floor)
