"""Quantiles of Student's distribution, without SciPy."""

import math

TINY = 1e-300
MAX_TERMS = 500


def student_quantile(p, dof):
    """Return the ``p``-quantile of Student's t distribution.

    Parameters
    ----------
    p : float
        In (0, 1).
    dof : float
        Degrees of freedom, above 0.

    Returns
    -------
    float
        Found by bisection, to a relative 1e-10.

    Examples
    --------
    >>> round(student_quantile(0.975, 4.0), 6)
    2.776445
    """
    if p < 0.5:
        return -student_quantile(1 - p, dof)
    tail, low, high = 1 - p, 0.0, 1.0
    while _upper_tail(high, dof) > tail and high < 1e150:
        high *= 2
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (
            (middle, high) if _upper_tail(middle, dof) > tail else (low, middle)
        )
    return (low + high) / 2


def _upper_tail(t, dof):
    """Return P(T > t) for t >= 0."""
    return _incomplete_beta(dof / 2, 0.5, dof / (dof + t * t)) / 2


def _incomplete_beta(a, b, x):
    """Return the regularised incomplete beta function I_x(a, b).

    By the continued fraction 8.17.22 of the NIST Digital Library of Mathematical
    Functions, evaluated by Lentz's method.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    log_factor = a * math.log(x) + b * math.log1p(-x) - math.log(a)
    log_factor += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1 / _not_zero(1 + term * d), _not_zero(1 + term / c)
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return math.exp(log_factor) * fraction


def _not_zero(value):
    return value if abs(value) > TINY else TINY
