"""Shares of the rows that let fast and slow ranks take equally long."""

import numpy as np

LEAST, MOST = 0.25, 2.0  # bounds of a share, as parts of an even one
GAIN = 0.05  # smallest part of an epoch's time that a move must save
STEP = 0.75  # part of the way that one move goes, as a measurement is noisy
HALVINGS = 100  # of a bracket of two positive numbers, which it leaves empty


def balanced_cuts(cuts, speeds):
    r"""Return cuts by which all ranks take equally long, as far as that is worth it.

    Rank :math:`r` has :math:`k_r` units and computes :math:`v_r` a second. Its target
    is :math:`\lambda v_r`, kept within a quarter and twice the even share, where
    :math:`\lambda` is such that the targets add up to all units. Its share moves three
    quarters of the way there.

    Parameters
    ----------
    cuts : sequence of int, length P + 1
        Rank r has the units, rows or groups of rows, from ``cuts[r]`` up to
        ``cuts[r + 1]``.
    speeds : array_like, shape (P,)
        Units a second; 0: not measured. These ranks keep the number of their units, as
        do ranks without any.

    Returns
    -------
    list of int, length P + 1
        ``cuts`` if the slowest rank would gain less than 5 %.

    Notes
    -----
    Even if time is not proportional to units, repeated moves approach equal times: a
    rank that takes as long as the others keeps its share. No rank that had a unit loses
    its last one.

    Examples
    --------
    >>> balanced_cuts([0, 400, 800, 1200], [100, 100, 50])
    [0, 460, 920, 1200]
    """
    counts, speeds = np.diff(cuts), np.asarray(speeds, dtype=np.float64)
    known = np.flatnonzero((counts > 0) & (speeds > 0) & np.isfinite(speeds))
    if len(known) < 2:
        return list(cuts)
    old, speeds = counts[known], speeds[known]
    even = cuts[-1] / len(counts)
    target = _proportional(speeds, old.sum(), max(LEAST * even, 1), MOST * even)
    new = _whole(old + STEP * (target - old), old.sum(), speeds)
    if (new / speeds).max() > (1 - GAIN) * (old / speeds).max():
        return list(cuts)
    counts[known] = new
    return [0, *np.cumsum(counts).tolist()]


def _proportional(speeds, total, least, most):
    """Return the numbers ``lambda speeds`` within bounds that add up to ``total``."""
    mean = total / len(speeds)  # within the bounds, whatever the other ranks hold
    least, most = min(least, mean), max(most, mean)
    low, high = least / speeds.max(), most / speeds.min()  # all at the bounds
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if np.clip(middle * speeds, least, most).sum() < total:
            low = middle
        else:
            high = middle
    return np.clip(high * speeds, least, most)


def _whole(shares, total, speeds):
    """Return whole numbers near ``shares`` that add up to ``total``.

    Units that are left after rounding down go to the ranks that take least longer.
    """
    found = np.floor(shares).astype(np.int64)
    left = int(total - found.sum())
    found[np.argsort((found + 1) / speeds, kind="stable")[:left]] += 1
    return found
