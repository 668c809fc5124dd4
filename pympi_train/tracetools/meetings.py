"""The exchanges in which all ranks of a trace meet, and the work before them."""

from typing import NamedTuple

import numpy as np

from pympi_train.trace.events import KINDS
from pympi_train.tracetools.sampling import (
    are_adjacent,
    are_in_steps,
    recorded_steps,
    weights_of,
)

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
        Seconds of each kind since the rank's exit from the meeting before, in all steps
        that the recorded ones stand for. Before the first meeting: since all tracks
        have begun.
    weights : ndarray of float, shape (n,)
        How many such calls each stands for.
    recorded_s : ndarray of float, shape (ranks, n)
        Seconds of the recorded work alone.
    calls_s : ndarray of float, shape (ranks, n)
        Seconds in waits, and in calls that only some ranks make, as ``work_s``.
    recorded : ndarray of int
        The steps that all ranks have recorded, ascending.
    """

    steps: np.ndarray
    arrivals_s: np.ndarray
    exits_s: np.ndarray
    work_s: np.ndarray
    weights: np.ndarray
    recorded_s: np.ndarray
    calls_s: np.ndarray
    recorded: np.ndarray


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
        none = np.empty((*shape, len(WORK))), np.empty(0), *[np.empty(shape)] * 2
        return Meetings(*empty, *none, _recorded_by_all(tracks))
    places = [np.searchsorted(keys, common) for keys, _, _ in found]
    names = np.array([n[at] for at, (_, n, _) in zip(places, found)])
    kept = _until_names_differ(common, (names == names[0]).all(axis=0))
    indices = [where[at[kept]] for at, (_, _, where) in zip(places, found)]
    # A resumed step may repeat numbers: the order is that of the first rank's time.
    order = np.argsort(tracks[0].starts_s[indices[0]], kind="stable")
    indices = [index[order] for index in indices]
    steps = common[kept][order] // MOST_CALLS
    recorded = _recorded_by_all(tracks)
    inside = are_in_steps(tracks[0])[indices[0]]
    weights = weights_of(steps, inside, recorded)
    begun_s = max(track.starts_s[0] for track in tracks)
    how = begun_s, recorded
    work = [_work_before(track, i, *how) for track, i in zip(tracks, indices)]
    return Meetings(
        steps,
        np.array([track.starts_s[i] for track, i in zip(tracks, indices)]),
        np.array([track.ends_s[i] for track, i in zip(tracks, indices)]),
        np.array([work_s for work_s, _, _ in work]),
        weights,
        np.array([recorded_s for _, recorded_s, _ in work]),
        np.array([calls_s for _, _, calls_s in work]),
        recorded,
    )


def _recorded_by_all(tracks):
    """Return the steps that all ranks have recorded."""
    found = recorded_steps(tracks[0])
    for track in tracks[1:]:
        found = np.intersect1d(found, recorded_steps(track), assume_unique=True)
    return found


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


def _work_before(track, indices, begun_s, recorded):
    """Return the work since the call before, as `Meetings` has it.

    Parameters
    ----------
    track : Track
    indices : ndarray of int, shape (n,)
        Of the calls' spans.
    begun_s : float
        Before the first call, what begins from then on counts.
    recorded : ndarray of int
        Steps that all ranks have recorded.

    Returns
    -------
    work_s : ndarray, shape (n, len(WORK))
    recorded_s : ndarray, shape (n,)
    calls_s : ndarray, shape (n,)
    """
    weights = weights_of(track.steps, are_in_steps(track), recorded)
    first = min(int(np.searchsorted(track.starts_s, begun_s)), indices[0])
    plain, _, other_s = _sums_before(track, first, indices, np.ones(len(weights)))
    found, calls_s, _ = _sums_before(track, first, indices, weights)
    is_next = are_adjacent(track.steps[np.r_[first, indices]], recorded)
    # Else steps in between were not recorded.
    plain[:, -1] = found[:, -1] = np.where(is_next, other_s, 0.0)
    return found, plain.sum(axis=1), calls_s


def _sums_before(track, first, indices, weights):
    """Return weighted seconds of work, and in other calls, since the call before.

    The third is the time in no span, not weighted. Before the first call, all count
    from the span ``first`` on.
    """
    seconds = track.ends_s - track.starts_s
    table = np.zeros((len(indices), len(WORK)))
    covered, calls_s = np.zeros((2, len(indices)))
    for kind in range(len(KINDS)):
        own_s = np.where(track.kinds == kind, weights * seconds, 0.0)
        sums = np.r_[0.0, np.cumsum(own_s)]
        between = np.diff(sums[indices], prepend=sums[first])
        if kind == COLLECTIVE:  # the meeting before is no work
            between[1:] -= own_s[indices[:-1]]
        covered += between
        if kind in (COLLECTIVE, WAIT):
            calls_s += between
        else:
            table[:, WORK.index(KINDS[kind])] = between
    since_s = np.r_[track.starts_s[first], track.ends_s[indices[:-1]]]
    other_s = np.maximum(track.starts_s[indices] - since_s - covered, 0.0)
    return table, calls_s, other_s
