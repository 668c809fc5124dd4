"""Losses and updates of many trainings at once, with NumPy.

A lane is one of L trainings that read the same rows. Its outputs are columns of one
array, and its parameters are columns of one block. Rows that a lane holds out count
nothing in its loss, and their gradient is zero.
"""

import numpy as np

from pympi_train.backends.blocks import block_size, quiet, scratch
from pympi_train.backends.numpy.updates import adagrad_block, adam_block

DOUBLE = np.dtype(np.float64)


@quiet
def logistic_lanes(z, y, weights, folds, held, losses):
    r"""Add each lane's loss sum to ``losses``; its gradient overwrites the logits.

    With :math:`w_{il} = w_i [f_i \ne h_l]`,

    .. math::
        \sum_i w_{il} \left(\log(1 + e^{z_{il}}) - y_i z_{il}\right), \qquad
        z_{il} \leftarrow w_{il} \left(\frac{1}{1 + e^{-z_{il}}} - y_i\right).

    Parameters
    ----------
    z : ndarray, shape (k, L, 1)
        The logits of each lane.
    y : ndarray, shape (k,)
        0 or 1, in the dtype of the logits.
    weights : ndarray, shape (k,), or None
        :math:`w`, in the dtype of the logits; None means that all are 1.
    folds : ndarray of int32, shape (k,)
        :math:`f`, the fold of each row.
    held : ndarray of int32, shape (L,)
        :math:`h`, the fold that each lane holds out.
    losses : ndarray, shape (L,), float64
    """
    z = z[:, :, 0]
    for rows in _row_blocks(z):
        part, labels = z[rows], y[rows, None]
        out = folds[rows, None] == held
        small, loss, hinge, term = (_scratch(part, slot) for slot in range(4))
        np.absolute(part, out=small)
        np.negative(small, out=small)
        np.exp(small, out=small)
        np.log1p(small, out=loss)
        np.maximum(part, 0.0, out=hinge)
        np.multiply(labels, part, out=term)
        np.subtract(hinge, term, out=hinge)
        np.add(loss, hinge, out=loss)
        np.maximum(small, np.greater_equal(part, 0.0), out=part)  # NaN stays NaN
        np.add(small, 1.0, out=small)
        np.divide(part, small, out=part)
        np.subtract(part, labels, out=part)
        if weights is not None:
            np.multiply(loss, weights[rows, None], out=loss)
            np.multiply(part, weights[rows, None], out=part)
        _leave_out(out, loss, part)
        losses += np.add.reduce(loss, axis=0, dtype=DOUBLE)


@quiet
def softmax_lanes(z, y, weights, folds, held, losses):
    r"""Add each lane's loss sum to ``losses``; its gradient overwrites the logits.

    .. math::
        \sum_i w_{il} \left(\log \sum_j e^{z_{ilj}} - z_{il y_i}\right), \qquad
        z_{ilj} \leftarrow w_{il} \left(\frac{e^{z_{ilj}}}{\sum_m e^{z_{ilm}}}
            - [j = y_i]\right)

    Parameters
    ----------
    z : ndarray, shape (k, L, c)
    y : ndarray of intp, shape (k,)
        In [0, c).
    weights, folds, held, losses
        As for `logistic_lanes`.
    """
    for rows in _row_blocks(z):
        part, labels = z[rows], y[rows, None, None]
        weight = z.dtype.type(1.0) if weights is None else weights[rows, None]
        np.subtract(part, np.maximum.reduce(part, axis=2)[:, :, None], out=part)
        picked = np.take_along_axis(part, labels, axis=2)[:, :, 0]
        np.exp(part, out=part)
        sums = np.add.reduce(part, axis=2)
        terms = np.log(sums, dtype=DOUBLE)
        terms -= picked
        terms *= weight
        np.divide(weight, sums, out=sums)
        np.multiply(part, sums[:, :, None], out=part)
        hits = np.take_along_axis(part, labels, axis=2)
        hits[:, :, 0] -= weight
        np.put_along_axis(part, labels, hits, axis=2)
        _leave_out(folds[rows, None] == held, terms, part)
        losses += np.add.reduce(terms, axis=0)


@quiet
def squared_lanes(z, y, weights, folds, held, losses):
    r"""Add each lane's loss sum to ``losses``; its gradient overwrites the outputs.

    .. math::
        \sum_i \frac{w_{il}}{2} \sum_j (h_{ilj} - y_{ij})^2, \qquad
        h_{ilj} \leftarrow w_{il} (h_{ilj} - y_{ij})

    Parameters
    ----------
    z : ndarray, shape (k, L, t)
        :math:`h`.
    y : ndarray, shape (k, t)
    weights, folds, held, losses
        As for `logistic_lanes`.
    """
    for rows in _row_blocks(z):
        part = z[rows]
        np.subtract(part, y[rows, None, :], out=part)
        squares = np.add.reduce(np.square(part, dtype=DOUBLE), axis=2)
        if weights is not None:
            squares *= weights[rows, None]
            np.multiply(part, weights[rows, None, None], out=part)
        _leave_out(folds[rows, None] == held, squares, part)
        losses += 0.5 * np.add.reduce(squares, axis=0)


def count_hits(z, y, weights, hits):
    """Add to ``hits`` the weight of the rows whose class a lane predicts.

    Parameters
    ----------
    z : ndarray, shape (k, L, c)
        Logits. The class is that of the largest; for c = 1, class 1 if it is positive.
    y : ndarray, shape (k,)
        Classes, from 0.
    weights : ndarray, shape (k,), or None
    hits : ndarray, shape (L,), float64
    """
    found = z[:, :, 0] > 0 if z.shape[2] == 1 else z.argmax(axis=2)
    found = found == y[:, None]
    if weights is not None:
        found = found * weights[:, None].astype(DOUBLE)
    hits += np.add.reduce(found, axis=0, dtype=DOUBLE)


@quiet
def sgd_lanes(params, grad, velocity, *, rate, scale, ridge, momentum, nesterov):
    r"""Update ``params`` in place, each column with its own rate; see ``sgd_update``.

    Parameters
    ----------
    params, grad : ndarray, shape (r, w)
        Parameters and gradient sums; ``grad`` is not changed.
    velocity : ndarray, shape (r, w), or None
        None when ``momentum`` is 0.
    rate, scale, ridge : ndarray, shape (w,), the dtype of ``params``
        :math:`\eta, s, \lambda` of each column.
    momentum : float
    nesterov : bool
    """
    mu = params.dtype.type(momentum)
    for rows in _row_blocks(params):
        p = params[rows]
        g, term = _gradient(p, grad[rows], scale, ridge)
        if velocity is not None:
            v = velocity[rows]
            np.multiply(v, mu, out=v)
            np.add(v, g, out=v)
            if nesterov:
                np.multiply(v, mu, out=term)
                np.add(g, term, out=g)
            else:
                np.copyto(g, v)
        np.multiply(g, rate, out=g)
        np.subtract(p, g, out=p)


@quiet
def adam_lanes(params, grad, m, v, *, scale, ridge, rate, floor, keep, betas):
    r"""Update ``params`` in place, each column with its own rate; see ``adam_update``.

    Parameters
    ----------
    params, grad, m, v : ndarray, shape (r, w)
    scale, ridge, rate, floor, keep : ndarray, shape (w,), the dtype of ``params``
        As `backends.scalars.adam_scalars` computes the last three for a column.
    betas : tuple of float
        beta1, 1 - beta1, beta2, 1 - beta2.
    """
    typed_betas = [params.dtype.type(beta) for beta in betas]
    for rows in _row_blocks(params):
        p = params[rows]
        g, term = _gradient(p, grad[rows], scale, ridge)
        adam_block(p, g, m[rows], v[rows], term, *typed_betas, rate, floor, keep)


@quiet
def adagrad_lanes(params, grad, squares, *, scale, ridge, rate, eps):
    """Update ``params``, each column with its own rate; see ``adagrad_update``.

    Parameters
    ----------
    params, grad, squares : ndarray, shape (r, w)
    scale, ridge, rate : ndarray, shape (w,), the dtype of ``params``
    eps : float
    """
    floor = params.dtype.type(eps)
    for rows in _row_blocks(params):
        p = params[rows]
        g, term = _gradient(p, grad[rows], scale, ridge)
        adagrad_block(p, g, squares[rows], term, rate, floor)


def _leave_out(held, losses, deltas):
    """Zero the losses and gradients of held-out rows, even if they are NaN."""
    np.copyto(losses, 0.0, where=held)
    if deltas.ndim == 3:
        held = held[:, :, None]
    np.copyto(deltas, 0.0, where=held)


def _gradient(params, grad, scale, ridge):
    """Return ``scale grad + ridge params``, and another array of its shape."""
    g, term = _scratch(params, 0), _scratch(params, 1)
    np.multiply(grad, scale, out=g)
    np.multiply(params, ridge, out=term)
    np.add(g, term, out=g)
    return g, term


def _scratch(like, slot):
    return scratch(like.dtype, like.size, slot).reshape(like.shape)


def _row_blocks(array):
    """Return slices of rows that fit in cache."""
    step = max(1, block_size(array.dtype) // max(1, array[:1].size))
    return [slice(i, i + step) for i in range(0, len(array), step)]
