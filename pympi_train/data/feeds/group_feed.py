"""Batches of a rank's rows, split by group."""

import numpy as np

from pympi_train.data.feeds.feed import Feed

MISPLACED = (
    "reduction exact needs each rank's rows to be those of its groups, and rows are "
    "moved by fit alone: cut them by data.groups.row_cuts(n, virtual_shards, ranks)"
)


class GroupFeed(Feed):
    """A feed that can also split a batch by the groups of its rows.

    Parameters
    ----------
    source : Source
        Each row is on the rank that owns its group (`data.groups.regrouped`).
    cuts : ndarray, shape (groups of this rank + 1,)
        First local row of each group, and the end of the last.
    most, y_dtype
        As for `Feed`.
    """

    def __init__(self, source, cuts, most, y_dtype=None):
        super().__init__(source, most, y_dtype)
        self._cuts = cuts

    def by_group(self, rows):
        """Return, per own group, its share of ``rows`` in order, or None if empty."""
        if isinstance(rows, slice):
            cuts = np.clip(self._cuts, rows.start, rows.stop).tolist()
            return [slice(a, b) if a < b else None for a, b in zip(cuts, cuts[1:])]
        group = np.searchsorted(self._cuts, rows, side="right")
        order = np.argsort(group, kind="stable")
        rows = rows[order]
        ends = np.searchsorted(group[order], np.arange(len(self._cuts)), side="right")
        ends = ends.tolist()
        return [rows[a:b] if a < b else None for a, b in zip(ends, ends[1:])]
