"""The distinct values of columns with their counts, up to a limit, over ranks."""

import math
from collections import Counter

import numpy as np

SHOWN = 20  # values of a column in its statistics, the most frequent first


class Distinct:
    """Counts of the distinct values of a column; None once there are too many.

    Parameters
    ----------
    limit : int
    """

    def __init__(self, limit):
        self.limit = limit
        self.counts: Counter | None = Counter()

    def add(self, values, is_there):
        """Count values: ndarray, shape (k,), and which of them are not missing."""
        if self.counts is None or not is_there.any():
            return
        values = values[is_there]
        if values.dtype.kind == "O":
            found = Counter(values.tolist())
        else:
            unique, counts = np.unique(values, return_counts=True)
            if len(unique) > self.limit:
                self.counts = None
                return
            if unique.dtype.kind == "M":
                unique = unique.astype(str)
            found = Counter(dict(zip(unique.tolist(), counts.tolist())))
        self.counts = _bounded(self.counts, found, self.limit)


def _bounded(a, b, limit):
    """Return the sum of two counters, or None if it has too many values."""
    if a is None or b is None:
        return None
    total = a + b
    return total if len(total) <= limit else None


def agree_distinct(columns, comm):
    """Return {name: {"distinct", "labels"}} over all ranks. Collective.

    Parameters
    ----------
    columns : dict of str to Distinct
    comm : MPI.Comm
        Messages go up a tree, each of at most the limit.

    Returns
    -------
    dict
        ``distinct`` is the number of values, or None if there are too many. Then there
        are no ``labels``: a list of (value, rows).
    """
    limits = {name: one.limit for name, one in columns.items()}

    def merge(a, b):
        return {name: _bounded(a[name], b[name], limits[name]) for name in limits}

    own = {name: one.counts for name, one in columns.items()}
    merged = comm.bcast(comm.reduce(own, op=merge, root=0), root=0)
    found = {}
    for name, counts in merged.items():
        one = {"distinct": None if counts is None else len(counts)}
        if counts is not None:
            ordered = sorted(counts.items(), key=lambda pair: (-pair[1], _key(pair[0])))
            one["labels"] = [[_plain(v), count] for v, count in ordered[:SHOWN]]
        found[name] = one
    return found


def _plain(value):
    """Return a value as JSON can hold it."""
    is_float = isinstance(value, float)
    return str(value) if is_float and not math.isfinite(value) else value


def _key(value):
    """Return a sort key of a label, the same on any ranks."""
    is_number = isinstance(value, (bool, int, float))
    return (0, value, "") if is_number else (1, 0, str(value))
