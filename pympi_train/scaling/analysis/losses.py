r"""Where efficiency is lost: a share for each cause, which together are the whole loss.

The rank-seconds of a step are :math:`p\, t_p = \sum_k p\, c_k(p)` over its parts
:math:`c_k`. Of strong scaling the loss is
:math:`1 - E = \sum_k (p\, c_k(p) - p_0 c_k(p_0)) / (p\, t_p)`, of weak scaling
:math:`\sum_k (c_k(p) - c_k(p_0)) / t_p`. Each part is a cause, except that of computing
itself: ranks that share a node's memory slow each other down (contention), and a small
batch has the same calls as a large one (small batches). What the ranks compute beyond
their median is imbalance, as is the waiting for it. A weak study, whose ranks have
the same number of rows, shows contention alone; its growth is used for both modes.
"""

from typing import NamedTuple

import numpy as np

CAUSES = {
    "imbalance": "wait",
    "transfer": "transfer",
    "pack": "pack",
    "update": "update",
    "input": "input",
}
CONTENTION, SMALL, EITHER = "contention", "small batches", "computing"


class Losses(NamedTuple):
    """Lost efficiency of a point by cause; their sum is ``total``. Negative: gained."""

    total: float
    by_cause: dict

    @property
    def largest(self):
        """The cause of the largest loss; None if nothing is lost."""
        name = max(self.by_cause, key=self.by_cause.__getitem__)
        return name if self.by_cause[name] > 0 else None


def losses_of(series, point, weak=None):
    """Return the Losses of a point of a Series.

    Parameters
    ----------
    series : Series
    point : StudyPoint
    weak : Series, optional
        The weak study of the same strategy, for contention.
    """
    base = series.base
    scale = 1.0 if series.mode == "weak" else base.ranks / point.ranks

    def lost(seconds):
        return (seconds(point) - scale * seconds(base)) / point.step_s

    by_cause = {
        cause: lost(lambda one, part=part: one.part_s(part))
        for cause, part in CAUSES.items()
    }
    by_cause["imbalance"] += lost(lambda one: one.part_s("compute") - _typical_s(one))
    by_cause |= _of_computing(series, point, weak, scale, lost(_typical_s))
    return Losses(sum(by_cause.values()), by_cause)


def _typical_s(point):
    """Return the computing of the median rank, a mean over repeats.

    The faster one of the two in the middle: of two ranks, the slow one is not typical.
    """
    ordered_s = np.sort(point.parts_s["compute"], axis=1)
    return float(ordered_s[:, (ordered_s.shape[1] - 1) // 2].mean())


def _of_computing(series, point, weak, scale, growth):
    if series.mode == "weak":
        return {CONTENTION: growth}
    factor = None if weak is None else _contention(weak, point)
    if factor is None:
        return {EITHER: growth}
    share = scale * _typical_s(series.base) * (factor - 1) / point.step_s
    return {CONTENTION: share, SMALL: growth - share}


def _contention(weak, point):
    """Return by how much computing slows down on as many ranks and nodes, or None."""
    for other in weak.points:
        is_same = (other.ranks, other.nodes) == (point.ranks, point.nodes)
        if is_same and _typical_s(weak.base) > 0:
            return _typical_s(other) / _typical_s(weak.base)
    return None
