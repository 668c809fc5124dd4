"""How much of the sums of buckets backward hides, in a trace."""

import numpy as np

from pympi_train.trace.events import KINDS
from pympi_train.tracetools.sampling import recorded_steps, weights_of

BACKWARD = KINDS.index("backward")


def summarise_buckets(tracks):
    """Return what the sums of buckets in flight took, or None if there were none.

    Parameters
    ----------
    tracks : sequence of Track

    Returns
    -------
    dict or None
        ``share_of_steps`` that have buckets in flight (``overlap = "auto"`` tries them
        in some), ``per_step`` (buckets of such a step), ``median_s`` of a flight, and
        ``hidden_share``: of the time in which at least one bucket of a rank is in
        flight, that in which the rank is in backward.
    """
    tracks = [track for track in tracks if len(track.flights)]
    if not tracks:
        return None
    flying_s = hidden_s = 0.0
    for track in tracks:
        edges_s, sums_s = union(track.flights[:, 1], track.flights[:, 2])
        is_backward = track.kinds == BACKWARD
        ends = track.starts_s[is_backward], track.ends_s[is_backward]
        before_s, until_s = (np.interp(end, edges_s, sums_s) for end in ends)
        flying_s += sums_s[-1]
        hidden_s += (until_s - before_s).sum()
    seconds = [track.flights[:, 2] - track.flights[:, 1] for track in tracks]
    counts = [np.unique(t.flights[:, 0], return_counts=True)[1] for t in tracks]
    return {
        "share_of_steps": float(np.mean([_share_of_steps(t) for t in tracks])),
        "per_step": int(np.median(np.concatenate(counts))),
        "median_s": float(np.median(np.concatenate(seconds))),
        "hidden_share": float(hidden_s / flying_s) if flying_s > 0 else 0.0,
    }


def _share_of_steps(track):
    """Return the share of a rank's steps with buckets in flight."""
    recorded = recorded_steps(track)
    counts = weights_of(recorded, np.ones(recorded.size, bool), recorded)
    is_flown = np.isin(recorded, track.flights[:, 0])
    return counts[is_flown].sum() / max(counts.sum(), 1.0)


def union(starts, ends):
    """Return the union of intervals as a function of time.

    Parameters
    ----------
    starts, ends : ndarray, shape (n,)
        At least one interval.

    Returns
    -------
    edges : ndarray, shape (2 m,)
        Where the m separate intervals of the union begin and end, ascending.
    sums : ndarray, shape (2 m,)
        Length of the union up to each edge.

    Examples
    --------
    >>> union(np.array([0.0, 1.0, 5.0]), np.array([2.0, 3.0, 6.0]))
    (array([0., 3., 5., 6.]), array([0., 3., 3., 4.]))
    """
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    is_new = np.r_[True, starts[1:] > ends[:-1]]
    firsts, lasts = starts[is_new], ends[np.r_[is_new[1:], True]]
    lengths = np.cumsum(lasts - firsts)
    edges = np.column_stack((firsts, lasts)).reshape(-1)
    return edges, np.column_stack((np.r_[0.0, lengths[:-1]], lengths)).reshape(-1)
