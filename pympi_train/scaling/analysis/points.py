"""The measurements of a study, put together by numbers of ranks and nodes."""

from dataclasses import dataclass

import numpy as np

# Of a step, as study.parts measures them.
PARTS = ("input", "compute", "pack", "wait", "transfer", "update")


@dataclass(frozen=True, eq=False)  # arrays have no single truth
class StudyPoint:
    """All repeats of one mode, strategy, number of ranks and number of nodes.

    Attributes
    ----------
    ranks, nodes, batch_size, parameters : int
    is_oversubscribed : bool
        Whether there were more ranks than cores.
    parts_s : dict of str to ndarray, shape (repeats, workers)
        Mean seconds a step of each rank that computes.
    steps_s : list of ndarray
        For each repeat the seconds of the steps, of the slowest rank.
    node_of : tuple of int
    node_names : tuple of str
        Names of the nodes by their numbers; empty if they are not known, or were others
        in some repeat.
    sent_bytes : float
        Sent by a rank in a step.
    joules : float or None
        Of all ranks in a step.
    is_full_batch : bool
        Whether each step computes with all rows.
    """

    ranks: int
    nodes: int
    batch_size: int
    parameters: int
    is_oversubscribed: bool
    parts_s: dict
    steps_s: list
    node_of: tuple
    node_names: tuple
    sent_bytes: float
    joules: float | None
    is_full_batch: bool

    @property
    def launches_s(self):
        """Mean seconds of a step in each repeat, over steps and ranks; shape (k,)."""
        return sum(self.parts_s.values()).mean(axis=1)

    @property
    def step_s(self):
        """Mean seconds of a step."""
        return float(self.launches_s.mean())

    def part_s(self, name):
        """Return the mean seconds a step of a part, over repeats and ranks."""
        return float(self.parts_s[name].mean())

    @property
    def rows_per_rank(self):
        return self.batch_size / self.ranks


@dataclass(frozen=True)
class Series:
    """The points of a mode and a strategy, by ascending ranks, then nodes.

    Attributes
    ----------
    mode, strategy : str
    points : tuple of StudyPoint
    base : StudyPoint
        With which all strategies of the mode are compared: of the fewest ranks.
    base_strategy : str
    refused : tuple of str
        Of ``advice.PROPOSED``: what the configuration does not allow, or has already.
    """

    mode: str
    strategy: str
    points: tuple
    base: StudyPoint
    base_strategy: str
    refused: tuple = ()

    @property
    def compared(self):
        """The points on other ranks or nodes than the base."""
        place = self.base.ranks, self.base.nodes
        return [p for p in self.points if (p.ranks, p.nodes) != place]

    @property
    def fitted(self):
        """The points that had a core for each rank: fits use no others."""
        return [p for p in self.points if not p.is_oversubscribed]

    @property
    def packed(self):
        """The point on the fewest nodes, of each number of ranks."""
        ranks = [p.ranks for p in self.points]
        return [p for i, p in enumerate(self.points) if p.ranks not in ranks[:i]]

    @property
    def spread(self):
        """The other points: their ranks were measured on fewer nodes as well."""
        packed = self.packed
        return [p for p in self.points if p not in packed]


def series_of(study):
    """Return the Series of a study's content, by mode and strategy.

    Repeats on other numbers of nodes are other points: their exchanges differ.
    """
    found: dict = {}
    for one in study["measurements"]:
        if one["error"] is None:
            by_place = found.setdefault((one["mode"], one["strategy"]), {})
            by_place.setdefault((one["ranks"], one["nodes"]), []).append(one)
    points = {
        key: tuple(_point(by[place]) for place in sorted(by))
        for key, by in sorted(found.items())
    }
    bases = {mode: _base(points, mode) for mode, _ in points}
    refused = study.get("refused", {})
    return [
        Series(mode, strategy, own, *bases[mode], tuple(refused.get(strategy, ())))
        for (mode, strategy), own in points.items()
    ]


def _base(points, mode):
    """Return the point with the fewest ranks of a mode, and its strategy.

    Of several strategies that of allreduce, which on one rank is the training without
    any exchange; else the fastest.
    """
    firsts = [
        (own[0].ranks, strategy != "allreduce", own[0].step_s, own[0], strategy)
        for (other, strategy), own in points.items()
        if other == mode
    ]
    return min(firsts, key=lambda first: first[:3])[3:]


def _point(measured):
    first = measured[0]
    names = first.get("node_names", [])
    is_same = all(one.get("node_names") == names for one in measured)
    joules = [one["joules"] for one in measured]
    return StudyPoint(
        ranks=first["ranks"],
        nodes=first["nodes"],
        batch_size=first["batch_size"],
        parameters=first["parameters"],
        is_oversubscribed=any(one["oversubscribed"] for one in measured),
        parts_s={
            name: np.array([one["parts_s"][name] for one in measured]) for name in PARTS
        },
        steps_s=[np.array(one["step_s"]) for one in measured],
        node_of=tuple(first["node_of"]),
        node_names=tuple(names) if is_same else (),
        sent_bytes=float(np.mean([one["sent_bytes"] for one in measured])),
        joules=None if None in joules else float(np.mean(joules)),
        is_full_batch=bool(first.get("full_batch")),
    )
