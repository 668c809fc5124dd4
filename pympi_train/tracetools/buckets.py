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
        flight, that in which the rank is in backward. Shares count each recorded step
        as often as it stands for others.
    """
    tracks = [track for track in tracks if len(track.flights)]
    if not tracks:
        return None
    flying_s = hidden_s = 0.0
    for track in tracks:
        steps, starts_s, ends_s = track.flights.T
        edges = union(starts_s, ends_s)
        number, at = np.unique(steps, return_inverse=True)
        first_s, last_s = np.full(number.size, np.inf), np.zeros(number.size)
        np.minimum.at(first_s, at, starts_s)
        np.maximum.at(last_s, at, ends_s)
        flying_s += _weighted_s(track, number, first_s, last_s, edges)
        own = track.kinds == BACKWARD
        spans = track.steps[own], track.starts_s[own], track.ends_s[own]
        hidden_s += _weighted_s(track, *spans, edges)
    seconds = [track.flights[:, 2] - track.flights[:, 1] for track in tracks]
    counts = [np.unique(t.flights[:, 0], return_counts=True)[1] for t in tracks]
    return {
        "share_of_steps": float(np.mean([_share_of_steps(t) for t in tracks])),
        "per_step": int(np.median(np.concatenate(counts))),
        "median_s": float(np.median(np.concatenate(seconds))),
        "hidden_share": float(hidden_s / flying_s) if flying_s > 0 else 0.0,
    }


def _weighted_s(track, steps, starts_s, ends_s, edges):
    """Return the seconds of intervals in a `union`, by what their steps stand for."""
    before_s, until_s = (np.interp(times_s, *edges) for times_s in (starts_s, ends_s))
    return float(_weights(track, steps) @ (until_s - before_s))


def _weights(track, steps):
    """Return how many steps each of ``steps`` stands for."""
    return weights_of(steps, np.ones(len(steps), bool), recorded_steps(track))


def _share_of_steps(track):
    """Return the share of a rank's steps with buckets in flight."""
    recorded = recorded_steps(track)
    counts = _weights(track, recorded)
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
