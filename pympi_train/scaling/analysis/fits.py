r"""The serial part of a step, by Amdahl's and Gustafson's laws.

Strong scaling: :math:`t_p = s + q / p` with :math:`s, q \ge 0`; the serial fraction is
:math:`s / (s + q)` [1]_. Weak scaling: the scaled speed-up is
:math:`p - f (p - 1)` [2]_.

References
----------
.. [1] G. M. Amdahl, "Validity of the single processor approach to achieving large scale
   computing capabilities", AFIPS 1967.
.. [2] J. L. Gustafson, "Reevaluating Amdahl's law", CACM 31(5), 1988.
"""

import numpy as np


def amdahl(ranks, seconds):
    """Return the serial fraction of a strong study, in [0, 1]; None of one point.

    Parameters
    ----------
    ranks, seconds : sequence of float
        Step times; each relative error counts the same.

    Examples
    --------
    >>> round(amdahl([1, 2, 4], [1.0, 0.55, 0.325]), 6)
    0.1
    """
    p, t = np.asarray(ranks, float), np.asarray(seconds, float)
    if len(p) < 2:
        return None
    columns = np.stack([1 / t, 1 / (p * t)], axis=1)
    ones = np.ones(len(p))
    serial, rest = np.linalg.lstsq(columns, ones, rcond=None)[0]
    if serial < 0 or rest < 0:  # the best of the two ends
        return 0.0 if serial < 0 else 1.0
    return float(serial / (serial + rest))


def gustafson(ranks, efficiencies):
    """Return the serial fraction of a weak study, in [0, 1]; None of one point.

    Parameters
    ----------
    ranks : sequence of int
        Ascending; the first may be above 1.
    efficiencies : sequence of float
        Relative to the first.

    Examples
    --------
    >>> round(gustafson([1, 2, 4], [1.0, 0.95, 0.925]), 6)
    0.1
    """
    p, e = np.asarray(ranks, float), np.asarray(efficiencies, float)
    if len(p) < 2:
        return None
    # From the efficiency 1 - f (p - 1) / p of any p, and that of the first.
    more = p - 1 - p * np.minimum(e, 1.0) * (p[0] - 1) / p[0]
    lost = p - p * e
    return float(np.clip(lost @ more / (more @ more), 0.0, 1.0))
