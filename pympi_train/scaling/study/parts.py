"""A step's time by part, from the spans of its trace or from the laps of the training.

Ranks leave a call at about the same time. What it takes on the rank that comes last is
therefore the transfer, and what it takes longer on others is waiting.
"""

import numpy as np

from pympi_train.comm.collectives import reduced
from pympi_train.trace.events import KINDS
from pympi_train.trace.laps import PHASES

OF_KINDS = {
    "input": ("input",),
    "compute": ("forward", "backward"),
    "pack": ("pack",),
    "update": ("update",),
}
CALLS = ("collective", "wait")
FLIGHT = "Waitsome"  # called as often as a rank sees sums end: ranks differ in that


def parts_of_step(comm, step_s, phases_s, spans, steps):
    """Return the seconds of each part in each step, shape (steps,), by name.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that compute.
    step_s : ndarray, shape (steps,)
        Seconds of the steps on this rank.
    phases_s : ndarray, shape (steps, 4)
        Seconds by phase of ``PHASES``.
    spans : ndarray of SPAN, or None
        Of these steps and others; None if some are lost.
    steps : ndarray of int, shape (steps,)
        Their numbers, as in the spans; ascending.

    Notes
    -----
    Collective. Without spans on some rank, the calls of a step count as one, and what
    packs counts as transfer.
    """
    is_whole = spans is not None and np.isin(steps, spans["step"]).all()
    (everyone,) = reduced(comm, [float(is_whole)], op="MIN")
    if everyone:
        parts, places, calls_s = _by_spans(spans, steps)
    else:
        of = {phase: phases_s[:, i] for i, phase in enumerate(PHASES)}
        parts = {name: of[name] for name in ("input", "compute", "update")}
        parts["pack"] = np.zeros(len(steps))
        places, calls_s = np.arange(len(steps)), of["communication"]
    least_s = _least(comm, len(steps), places, calls_s)
    own_s = _by_step(len(steps), places, calls_s)
    parts |= {"transfer": least_s, "wait": np.maximum(own_s - least_s, 0.0)}
    # What lies between the parts belongs to the update, which is the last of them.
    parts["update"] = parts["update"] + step_s - sum(parts.values())
    return parts


def _by_spans(spans, steps):
    """Return the parts, and the step's place and seconds of each call.

    All waits for buckets in flight count as one call of their step.
    """
    own = spans[np.isin(spans["step"], steps)]
    places = np.searchsorted(steps, own["step"])
    seconds = own["end_s"] - own["start_s"]

    def chosen(kinds):
        return np.isin(own["kind"], [KINDS.index(kind) for kind in kinds])

    parts = {
        name: _by_step(len(steps), places[chosen(kinds)], seconds[chosen(kinds)])
        for name, kinds in OF_KINDS.items()
    }
    is_flight = own["name"] == FLIGHT
    is_call = chosen(CALLS) & ~is_flight
    flown_s = _by_step(len(steps), places[is_flight], seconds[is_flight])
    places = np.concatenate([places[is_call], np.arange(len(steps))])
    return parts, places, np.concatenate([seconds[is_call], flown_s])


def _by_step(n, places, seconds):
    return np.bincount(places, weights=seconds, minlength=n).astype(np.float64)


def _least(comm, n, places, calls_s):
    """Return the sums by step of the least seconds of each call over the ranks.

    Ranks that make different calls, as of servers, are compared by steps.
    """
    counts = np.bincount(places, minlength=n)
    both = np.concatenate([counts, -counts])
    least = reduced(comm, both, op="MIN").astype(np.int64)
    if (least[:n] == -least[n:]).all():
        each_s = reduced(comm, calls_s, op="MIN") if len(calls_s) else calls_s
        return _by_step(n, places, each_s)
    return reduced(comm, _by_step(n, places, calls_s), op="MIN")
