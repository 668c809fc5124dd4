"""Robust least squares with coefficients that are not negative."""

from itertools import combinations

import numpy as np

ROUNDS = 20
HUBER = 1.345  # 95 % of the efficiency of least squares for normal errors


def nonnegative(matrix, target):
    """Return ``x >= 0`` that minimises ``|matrix x - target|``.

    Parameters
    ----------
    matrix : ndarray, shape (m, n)
        With few columns: all ``2^n`` choices of positive coefficients are tried.
    target : ndarray, shape (m,)

    Returns
    -------
    ndarray, shape (n,)
        With as few positive coefficients as possible, if columns say the same.
    """
    n = matrix.shape[1]
    best, least = np.zeros(n), float(target @ target)
    scale = np.linalg.norm(matrix, axis=0)
    usable = [i for i in range(n) if scale[i] > 0]
    for k in range(1, len(usable) + 1):
        for columns in map(list, combinations(usable, k)):
            part = matrix[:, columns] / scale[columns]
            x, *_ = np.linalg.lstsq(part, target, rcond=None)
            rest = part @ x - target
            if (x > 0).all() and (loss := float(rest @ rest)) < least * (1 - 1e-9):
                best, least = np.zeros(n), loss
                best[columns] = x / scale[columns]
    return best


def robust(matrix, seconds, known_s=0.0):
    """Return coefficients that are not negative and explain ``seconds``.

    Parameters
    ----------
    matrix : array, shape (m, n)
    seconds : array, shape (m,)
        Measured, above 0.
    known_s : array, shape (m,), optional
        Part of ``seconds`` that is explained otherwise.

    Returns
    -------
    ndarray, shape (n,)

    Notes
    -----

    Relative errors count, so that short times weigh as much as long ones. Outliers
    weigh less: Huber's weights [1]_, by the median absolute error.

    References
    ----------
    .. [1] P. J. Huber, "Robust estimation of a location parameter", Ann. Math. Statist.
       35 (1964).
    """
    matrix, seconds = np.asarray(matrix, float), np.asarray(seconds, float)
    scaled, target = matrix / seconds[:, None], 1 - known_s / seconds
    weights, before = np.ones(len(seconds)), None
    for _ in range(ROUNDS):
        root = np.sqrt(weights)
        found = nonnegative(scaled * root[:, None], target * root)
        error = np.abs(scaled @ found - target)
        spread = 1.4826 * np.median(error)
        if spread < 1e-12 or (before is not None and np.allclose(found, before, 1e-6)):
            break
        weights = np.minimum(1.0, HUBER * spread / np.maximum(error, 1e-300))
        before = found
    return found
