"""What spans stand for, where only some steps were recorded."""

import numpy as np

from pympi_train.trace.chrome import PHASE_KINDS


def without_first_step(track):
    """Return a Track without its first step, unless it is the only one.

    In the first step ranks compile, and wait for each other's start.
    """
    later = track.steps != track.steps[:1]
    if not later.any():
        return track
    blocks = ("kinds", "steps", "names", "starts_s", "ends_s")
    found = {name: getattr(track, name)[later] for name in blocks}
    flights = track.flights[track.flights[:, 0] != track.steps[0]]
    return track._replace(**found, flights=flights)


def recorded_steps(track):
    """Return the numbers of the steps that were recorded, ascending.

    A checkpoint, an evaluation and the calls in them are recorded before any step, with
    its number: they alone record no step.
    """
    return np.unique(track.steps[np.isin(track.kinds, PHASE_KINDS)])


def are_in_steps(track):
    """Return for each span whether it lies in a step: not between two of them.

    Returns
    -------
    ndarray of bool
        True for phases, and for calls between two phases of their step.
    """
    is_phase = np.isin(track.kinds, PHASE_KINDS)
    phases = np.flatnonzero(is_phase)
    if not phases.size:
        return is_phase
    after = np.searchsorted(phases, np.arange(track.kinds.size))
    before = np.maximum(after - 1, 0)
    next_step = track.steps[phases[np.minimum(after, phases.size - 1)]]
    is_between = (after > 0) & (after < phases.size)
    is_between &= track.steps[phases[before]] == track.steps
    return is_phase | (is_between & (next_step == track.steps))


def weights_of(steps, are_inside, recorded):
    """Return how many steps each span stands for.

    A recorded step stands for itself and for those since the one recorded before. What
    lies between two steps is always recorded, and stands for itself.

    Parameters
    ----------
    steps : ndarray of int
        Of the spans.
    are_inside : ndarray of bool
        Whether they lie in a step.
    recorded : ndarray of int
        The steps that were recorded, ascending.

    Returns
    -------
    ndarray of float64

    Examples
    --------
    >>> inside = np.array([True, True, False, True])
    >>> weights_of(np.array([7, 8, 16, 16]), inside, np.array([7, 8, 16])).tolist()
    [1.0, 1.0, 1.0, 8.0]
    """
    found = np.ones(len(steps))
    if recorded.size:
        stands_for = np.diff(recorded, prepend=recorded[0] - 1)
        at = np.minimum(np.searchsorted(recorded, steps), recorded.size - 1)
        found[are_inside] = stands_for[at][are_inside]
    return found


def are_adjacent(steps, recorded):
    """Return whether nothing that was not recorded lies between neighbours.

    Parameters
    ----------
    steps : ndarray of int, shape (n,)
        Of spans or calls, in the order of time.
    recorded : ndarray of int
        The steps that were recorded.

    Returns
    -------
    ndarray of bool, shape (n - 1,)
    """
    jumps = np.diff(steps)
    return (jumps == 0) | ((jumps == 1) & np.isin(steps[:-1], recorded))
