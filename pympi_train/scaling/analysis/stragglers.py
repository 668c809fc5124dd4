"""The rank for which the others wait, from the mean times of a study.

A study keeps no arrivals of single calls, by which
`tracetools.straggler.find_straggler` blames a rank in each step. A rank that is late in
turn is thus none here.
"""

from typing import NamedTuple

import numpy as np

from pympi_train.tracetools.straggler import LEAST_SHARE

NOTED = 0.05  # part of the median by which a straggler is slower, at least
WORK = ("input", "compute", "pack", "update")


class Straggler(NamedTuple):
    """A rank that is slower than the others in every repeat.

    Attributes
    ----------
    rank, node : int
    times : float
        Its seconds of work a step, in times of the median rank's.
    excess_s : float
        Seconds of work a step beyond the median rank's.
    part : str
        The part in which it loses most.
    is_node : bool
        Whether all ranks of its node are as slow, while other nodes are not.
    node_name : str
        Empty if it is not known.
    """

    rank: int
    node: int
    times: float
    excess_s: float
    part: str
    is_node: bool
    node_name: str

    @property
    def place(self):
        """The node for people: its number, and its name if that is known."""
        name = f" ({self.node_name})" if self.node_name else ""
        return f"node {self.node}{name}"


def slowest_rank(point):
    """Return the Straggler of a point; None if no rank is one in every repeat.

    Also None if the others wait for less than ``LEAST_SHARE`` of the time, as in a
    trace.
    """
    work = sum(point.parts_s[name] for name in WORK)  # (repeats, workers)
    if work.shape[1] < 2:
        return None
    rank = int(work.mean(axis=0).argmax())
    others = np.delete(work, rank, axis=1)
    middle = np.median(others, axis=1)
    waits_s = np.delete(point.parts_s["wait"], rank, axis=1).mean()
    is_waited_for = waits_s >= LEAST_SHARE * point.step_s
    if not is_waited_for or (work[:, rank] < (1 + NOTED) * middle).any():
        return None
    excess = {}
    for name in WORK:
        own = point.parts_s[name]
        rest = np.median(np.delete(own, rank, axis=1), axis=1)
        excess[name] = float((own[:, rank] - rest).mean())
    times = float((work[:, rank] / middle).mean())
    excess_s = float((work[:, rank] - middle).mean())
    node = point.node_of[rank]
    part = max(excess, key=excess.__getitem__)
    is_node = _is_whole_node(point, work, rank)
    name = point.node_names[node] if point.node_names else ""
    return Straggler(rank, node, times, excess_s, part, is_node, name)


def _is_whole_node(point, work, rank):
    nodes = np.array(point.node_of[: work.shape[1]])
    same = nodes == nodes[rank]
    if same.all() or same.sum() < 2:
        return False
    means = work.mean(axis=0)
    return bool(means[same].min() > (1 + NOTED) * np.median(means[~same]))
