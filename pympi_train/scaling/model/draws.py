"""Stragglers: the slowest of many ranks, from the times of a few."""

from functools import lru_cache

import numpy as np

TAIL = 0.05  # share of the draws beyond which the tail is taken as exponential
N_KEPT = 256  # quantiles that are kept of any number of draws
N_NODES = 4096  # of the integral


def quantiles_of(factors):
    """Return at most ``N_KEPT`` factors, ascending, with the same distribution."""
    ordered = np.sort(np.asarray(factors, dtype=float).ravel())
    if ordered.size > N_KEPT:
        ordered = np.quantile(ordered, (np.arange(N_KEPT) + 0.5) / N_KEPT)
    return tuple(ordered.tolist())


def expected_maximum(factors, n_ranks):
    r"""Return the expected maximum of ``n_ranks`` draws over that of one.

    Parameters
    ----------
    factors : sequence of float
        Seconds of computing of ranks in steps, divided by their mean; ascending.
    n_ranks : int or float

    Returns
    -------
    float
        At least 1, and it grows with ``n_ranks``.

    Notes
    -----
    The maximum of P independent draws with distribution F has the distribution
    :math:`F^P` [1]_, so its mean is :math:`\int_0^1 Q(v^{1/P})\, dv` with the quantile
    function :math:`Q`. Below the quantile :math:`1 - p`, with p = ``TAIL``, Q is
    that of the draws. Beyond it, where draws are few, the excess is taken as
    exponential with the mean excess of the draws: the peaks-over-threshold model [2]_
    with shape 0, whose maximum grows with :math:`\log P`. Stragglers with a heavier
    tail, such as a node that pauses for seconds, are underestimated. Time and memory do
    not depend on P.

    References
    ----------
    .. [1] H. A. David and H. N. Nagaraja, "Order Statistics", 3rd ed., 2003, chapter 2.
    .. [2] J. Pickands, "Statistical inference using extreme order statistics", Ann.
       Statist. 3 (1975).
    """
    factors = tuple(factors)
    if len(factors) < 2 or n_ranks <= 1 or factors[0] == factors[-1]:
        return 1.0
    return _maximum(factors, n_ranks) / _maximum(factors, 1)


@lru_cache(maxsize=2048)  # the ways of a study are predicted for the same few ranks
def _maximum(factors, n_ranks):
    draws = np.asarray(factors, dtype=float)
    level = np.log((np.arange(N_NODES) + 0.5) / N_NODES) / n_ranks
    beyond = -np.expm1(level)  # 1 - v^(1/P), precise near 0
    threshold = np.quantile(draws, 1 - TAIL)
    excess = (draws[draws >= threshold] - threshold).mean()
    tail = threshold + excess * np.log(TAIL / np.minimum(beyond, TAIL))
    body = np.quantile(draws, np.minimum(1 - beyond, 1 - TAIL))
    return float(np.where(beyond < TAIL, tail, body).mean())
