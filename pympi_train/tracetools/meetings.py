"""The exchanges in which all ranks of a trace meet, and the work before them."""

from typing import NamedTuple

import numpy as np

from pympi_train.trace.events import KINDS

COLLECTIVE, WAIT = KINDS.index("collective"), KINDS.index("wait")
# Of the work between two exchanges; "other" is time in no span.
WORK = tuple(k for k in KINDS if k not in ("collective", "wait")) + ("other",)
MOST_CALLS = 2**20  # of a step


class Meetings(NamedTuple):
    """The calls in which all ranks take part, in order.

    Attributes
    ----------
    steps : ndarray of int, shape (n,)
    arrivals_s, exits_s : ndarray of float, shape (ranks, n)
        When each rank begins and ends the call.
    work_s : ndarray of float, shape (ranks, n, len(WORK))
        Seconds of each kind since the rank's exit from the meeting before.
    """

    steps: np.ndarray
    arrivals_s: np.ndarray
    exits_s: np.ndarray
    work_s: np.ndarray


def find_meetings(tracks):
    """Return the Meetings of ranks: the collectives that all of them call.

    The i-th collective of a step on one rank is matched with the i-th on the others, as
    long as their names are equal. (Ranks of different nodes may call others.)

    Parameters
    ----------
    tracks : sequence of Track
        Of ranks that take steps.
    """
    found = [_calls_of(track) for track in tracks]
    common = found[0][0]
    for keys, _, _ in found[1:]:
        common = np.intersect1d(common, keys, assume_unique=True)
    if not common.size:
        shape = len(tracks), 0
        empty = np.empty(0, int), np.empty(shape), np.empty(shape)
        return Meetings(*empty, np.empty((*shape, len(WORK))))
    places = [np.searchsorted(keys, common) for keys, _, _ in found]
    names = np.array([n[at] for at, (_, n, _) in zip(places, found)])
    kept = _until_names_differ(common, (names == names[0]).all(axis=0))
    indices = [where[at[kept]] for at, (_, _, where) in zip(places, found)]
    # A resumed step may repeat numbers: the order is that of the first rank's time.
    order = np.argsort(tracks[0].starts_s[indices[0]], kind="stable")
    indices = [index[order] for index in indices]
    return Meetings(
        common[kept][order] // MOST_CALLS,
        np.array([track.starts_s[i] for track, i in zip(tracks, indices)]),
        np.array([track.ends_s[i] for track, i in zip(tracks, indices)]),
        np.array([_work_before(track, i) for track, i in zip(tracks, indices)]),
    )


def _calls_of(track):
    """Return sorted keys, names and indices of the collectives of a track.

    The key is step * MOST_CALLS + the number of the call in its step.
    """
    where = np.flatnonzero(track.kinds == COLLECTIVE)
    steps = track.steps[where]
    order = np.argsort(steps, kind="stable")
    where, steps = where[order], steps[order]
    first = np.searchsorted(steps, steps)
    numbers = np.arange(steps.size) - first
    kept = numbers < MOST_CALLS
    keys = steps * MOST_CALLS + numbers
    return keys[kept], track.names[where[kept]], where[kept]


def _until_names_differ(keys, is_same):
    """Return which calls count: those of a step before the first that differs."""
    steps = keys // MOST_CALLS
    wrong = np.cumsum(~is_same)
    before = np.r_[0, wrong][np.searchsorted(steps, steps)]
    return wrong == before


def _work_before(track, indices):
    """Return seconds by kind of WORK from each call to the one before, (n, kinds).

    Zero before the first.
    """
    seconds = track.ends_s - track.starts_s
    table = np.zeros((len(indices), len(WORK)))
    covered = np.zeros(len(indices))
    for kind in range(len(KINDS)):
        sums = np.r_[0.0, np.cumsum(np.where(track.kinds == kind, seconds, 0.0))]
        between = np.diff(sums[indices], prepend=sums[indices[:1]])
        if kind == COLLECTIVE:  # the meeting before is no work
            between[1:] -= seconds[indices[:-1]]
        covered += between
        if kind not in (COLLECTIVE, WAIT):
            table[:, WORK.index(KINDS[kind])] = between
    since_s = np.r_[track.starts_s[indices[:1]], track.ends_s[indices[:-1]]]
    other_s = np.maximum(track.starts_s[indices] - since_s - covered, 0.0)
    is_next = np.diff(track.steps[indices], prepend=track.steps[indices[:1]]) <= 1
    table[:, -1] = np.where(is_next, other_s, 0.0)  # else steps were not recorded
    return table
