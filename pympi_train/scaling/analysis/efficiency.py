r"""Speed-up and efficiency, with intervals by the bootstrap.

Of :math:`p` ranks with the step time :math:`t_p`, and :math:`p_0` the smallest number:
strong scaling has the speed-up :math:`p_0 t_{p_0} / t_p` and the efficiency
:math:`p_0 t_{p_0} / (p\, t_p)`; weak scaling the efficiency :math:`t_{p_0} / t_p`, and
the scaled speed-up :math:`p` times that.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from pympi_train.bench.suite.student import student_quantile

N_DRAWS = 2000
LEVEL = 0.95


class Efficiency(NamedTuple):
    """Efficiency of a StudyPoint, and the ends of its interval (95 %)."""

    value: float
    low: float
    high: float
    speedup: float


def efficiencies(series):
    """Return the Efficiency of each point of a Series, in their order."""
    base_s, base = _draws(series.base), series.base
    found = []
    for point in series.points:
        scale = 1.0 if series.mode == "weak" else base.ranks / point.ranks
        value = scale * base.step_s / point.step_s
        if point is base:
            found.append(Efficiency(1.0, 1.0, 1.0, float(base.ranks)))
            continue
        drawn = scale * base_s / _draws(point)
        tail = 50 * (1 - LEVEL)
        ends = np.percentile(drawn, [tail, 100 - tail])
        low, high = (value * (ends / value) ** _widening(series.base, point)).tolist()
        found.append(Efficiency(value, low, high, value * point.ranks))
    return found


def _widening(base, point):
    """Return by how much intervals of few launches are wider than their draws.

    Resampled launches vary by (n - 1) / n of the variance of launches, which itself is
    known from few: Student's distribution instead of the normal one. 1 from one launch,
    which says nothing of others.
    """
    counts = [len(one.steps_s) for one in (base, point)]
    n, dof = min(counts), sum(counts) - 2
    if n < 2:
        return 1.0
    level = (1 + LEVEL) / 2
    times = student_quantile(level, dof) / NormalDist().inv_cdf(level)
    return times * math.sqrt(n / (n - 1))


def _draws(point):
    """Return step times of resampled launches, of resampled steps; shape (draws,).

    Launches differ more than steps of one launch do, so both levels are resampled
    [1]_.

    References
    ----------
    .. [1] A. C. Davison, D. V. Hinkley, "Bootstrap Methods and their Application",
       Cambridge 1997, section 3.8.
    """
    rng = np.random.default_rng([point.nodes - 1, point.ranks])
    means_s, n = point.launches_s, len(point.steps_s)
    found = np.zeros(N_DRAWS)
    # A launch's mean over ranks varies as that of its slowest rank's steps does.
    noise = np.stack([_noise(rng, steps_s) for steps_s in point.steps_s])
    for _ in range(n):
        chosen = rng.integers(0, n, N_DRAWS)
        found += means_s[chosen] * noise[chosen, np.arange(N_DRAWS)]
    return found / n


def _noise(rng, steps_s):
    """Return means of resampled steps, as factors on the mean; shape (draws,)."""
    k = len(steps_s)
    drawn = rng.integers(0, k, (N_DRAWS, k))
    return steps_s[drawn].mean(axis=1) / steps_s.mean()
