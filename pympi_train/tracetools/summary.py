"""Who waits for whom, why, and the critical path, from the spans of all ranks."""

import numpy as np

from pympi_train.trace.events import KINDS
from pympi_train.tracetools.buckets import summarise_buckets
from pympi_train.tracetools.meetings import WORK, find_meetings
from pympi_train.tracetools.read import find_trace, read_tracks
from pympi_train.tracetools.sampling import (
    are_adjacent,
    are_in_steps,
    recorded_steps,
    weights_of,
    without_first_step,
)

FORWARD = KINDS.index("forward")
LEAST_SHARE = 0.02  # of the time: a smaller wait names no straggler
LEAST_EXCESS = 1.5  # times the wait that a rank causes on average


def summarise_trace(path):
    """Return what the trace of a run directory, or a trace file, says.

    A dict with ``path``, what the file tells of itself, and the result of `summarise`.
    Raises DataError as `find_trace` and `read_tracks`.
    """
    path = find_trace(path)
    about, tracks = read_tracks(path)
    return {"path": path, **about, **summarise(tracks, about.get("last_step", 0))}


def summarise(tracks, last_step=0):
    """Return what a trace says, as a dict of plain values.

    Parameters
    ----------
    tracks : sequence of Track
    last_step : int
        Number of the training's last step, if it is known; it may not be recorded.

    Returns
    -------
    dict
        ranks, nodes, seconds; ``steps`` (recorded ones) and ``steps_in_all`` (those
        that they stand for, and those after them); ``overwritten`` (ranks whose older
        spans were);
        ``straggler`` (rank, node, and as for `find_straggler`; or None);
        ``critical_path``, a list of rank, node, kind and share, largest first
        (the exchange has no rank);
        ``buckets`` as for `summarise_buckets`;
        ``phases_by_rank`` and ``phases_by_node``, lists with the share of each kind.

    Notes
    -----
    The first step counts only if there is no other: in it ranks compile, and wait for
    each other's start.

    Where only some steps were recorded, each counts as often as there are steps up to
    it from the one recorded before. Evaluations and checkpoints are always recorded,
    and would otherwise seem to take too much.
    """
    tracks = [without_first_step(track) for track in tracks]
    workers = [track for track in tracks if (track.kinds == FORWARD).any()]
    meetings = find_meetings(workers) if workers else None
    straggler, path = None, {}
    if meetings is not None and meetings.steps.size:
        path = critical_path(meetings)
        straggler = find_straggler(meetings, sum(path.values()))
    elif len(workers) == 1:  # it meets nobody: all that it does is critical
        shares = phases_of(workers[0])
        path = {(0, kind): share for kind, share in shares.items() if share > 0}
    if straggler is not None:
        track = workers[straggler.pop("index")]
        straggler = {"rank": track.rank, "node": track.node, **straggler}
    whole_s = sum(path.values())
    entries = []
    for (index, kind), seconds in sorted(path.items(), key=lambda item: -item[1]):
        entry = {"kind": kind, "share": seconds / whole_s}
        if index is not None:
            track = workers[index]
            entry = {"rank": track.rank, "node": track.node, **entry}
        entries.append(entry)
    steps = [track.steps[track.kinds == FORWARD] for track in workers]
    in_all = [int(max(own.max(), last_step) - own.min()) + 1 for own in steps]
    by_rank = [
        {"rank": track.rank, "node": track.node, "seconds": _seconds(track)}
        | phases_of(track)
        for track in tracks
    ]
    return {
        "ranks": len(tracks),
        "nodes": len({track.node for track in tracks}),
        "steps": int(np.unique(np.concatenate(steps)).size) if steps else 0,
        "steps_in_all": max(in_all, default=0),
        "seconds": max((_seconds(track) for track in tracks), default=0.0),
        "overwritten": [track.rank for track in tracks if track.is_cut],
        "straggler": straggler,
        "critical_path": entries,
        "buckets": summarise_buckets(tracks),
        "phases_by_rank": by_rank,
        "phases_by_node": _by_node(tracks, by_rank),
    }


def _seconds(track):
    """Return the seconds from a track's first span to its last."""
    if not track.starts_s.size:
        return 0.0
    return float(track.ends_s.max() - track.starts_s.min())


def phases_of(track):
    """Return the share of each kind and of "other" in a rank's time, a dict.

    Each recorded step counts as often as it stands for others.
    """
    recorded, inside = recorded_steps(track), are_in_steps(track)
    weights = weights_of(track.steps, inside, recorded)
    seconds = weights * (track.ends_s - track.starts_s)
    seconds = np.bincount(track.kinds, seconds, minlength=len(KINDS))
    gaps_s = track.starts_s[1:] - track.ends_s[:-1]
    is_in_step = inside[1:] & inside[:-1] & (np.diff(track.steps) == 0)
    gaps_s = gaps_s * np.where(is_in_step, weights[1:], 1.0)
    is_known = are_adjacent(track.steps, recorded)
    other_s = max(0.0, float(gaps_s[is_known].sum()))
    total_s = float(seconds.sum()) + other_s
    if total_s <= 0:
        return dict.fromkeys((*KINDS, "other"), 0.0)
    shares = dict(zip(KINDS, (seconds / total_s).tolist()))
    shares["other"] = other_s / total_s
    return shares


def _by_node(tracks, by_rank):
    """Return the means of the ranks' shares on each node."""
    found = []
    hosts = {track.node: track.host for track in tracks}
    for node in sorted(hosts):
        rows = [row for row in by_rank if row["node"] == node]
        shares = {
            kind: float(np.mean([row[kind] for row in rows]))
            for kind in (*KINDS, "other")
        }
        found.append({"node": node, "host": hosts[node], "ranks": len(rows)} | shares)
    return found


def waits_of(meetings):
    """Return each rank's seconds of waiting in each meeting, and for whom.

    Returns
    -------
    waits_s : ndarray, shape (ranks, n)
        From the rank's arrival to the last one's, or to its own exit if that is
        earlier (as after a broadcast).
    weights : ndarray, shape (ranks, n)
        How many waits each stands for.
    last : ndarray of int, shape (n,)
        Index of the rank that arrived last.
    """
    arrivals_s = meetings.arrivals_s
    last = arrivals_s.argmax(axis=0)
    until_s = np.minimum(meetings.exits_s, arrivals_s.max(axis=0))
    waits_s = np.maximum(until_s - arrivals_s, 0.0)
    return waits_s, _wait_weights(meetings, last), last


def _wait_weights(meetings, last):
    """Return how many waits each stands for, shape (ranks, n).

    They wait for what the last rank works more than they do: in a step that stands for
    others as often, for a checkpoint before it once.
    """
    at = np.arange(last.size)
    work_s = meetings.work_s.sum(axis=2)
    more_s = meetings.recorded_s[last, at] - meetings.recorded_s
    weighted_s = work_s[last, at] - work_s
    found = np.tile(meetings.weights, (len(work_s), 1))
    np.divide(weighted_s, more_s, out=found, where=more_s > 0)
    return np.clip(found, 1.0, meetings.weights)


def find_straggler(meetings, total_s):
    """Return the rank that the others wait for, or None if they wait for no one.

    In each step it is the rank that the others waited for the longest. The cause is the
    kind of work in which it exceeds the mean of the others the most, in these steps. It
    is the exchange if more of the waits has no such reason: the rank arrives late
    because it came out of the call before later, or waited longer for requests.

    Parameters
    ----------
    meetings : Meetings
        Of at least two ranks.
    total_s : float
        Seconds of the critical path.

    Returns
    -------
    dict or None
        index (of the rank), share_of_steps, cause (a kind of ``WORK``, or "exchange"),
        excess_share (of the rank's excess, by the cause), wait_share (of the other
        ranks' time, waited for this rank).
    """
    n_ranks, n = meetings.arrivals_s.shape
    if n_ranks < 2 or n == 0 or total_s <= 0:
        return None
    waits_s, weights, last = waits_of(meetings)
    steps, number = np.unique(meetings.steps, return_inverse=True)
    own_s, caused_s = np.zeros((2, n_ranks, steps.size))
    np.add.at(own_s, (last, number), waits_s.sum(axis=0))
    np.add.at(caused_s, (last, number), (weights * waits_s).sum(axis=0))
    blamed = own_s.argmax(axis=0)
    counts = _counts_of(steps, meetings.recorded)
    n_all = counts.sum()
    counts[caused_s.max(axis=0) == 0] = 0  # in these steps nobody waits
    found = int(np.bincount(blamed, counts, minlength=n_ranks).argmax())
    share = float(counts[blamed == found].sum() / n_all)
    others_s = (caused_s.sum() - caused_s[found].sum()) / (n_ranks - 1)
    wait_share = float(caused_s[found].sum() / (n_ranks - 1) / total_s)
    is_usual = caused_s[found].sum() < LEAST_EXCESS * others_s
    if is_usual or wait_share < LEAST_SHARE:
        return None
    late = (last == found) & (blamed[number] == found)
    waited_s = (weights * waits_s)[:, late].sum() / (n_ranks - 1)
    excess_s = _excess_of(found, meetings.work_s[:, late].sum(axis=1), waited_s)
    cause = max(excess_s, key=excess_s.get)
    return {
        "index": found,
        "share_of_steps": share,
        "cause": cause,
        "excess_share": excess_s[cause] / sum(excess_s.values()),
        "wait_share": wait_share,
    }


def _excess_of(index, work_s, waited_s):
    """Return the seconds by which a rank exceeds the mean of the others, by cause.

    Parameters
    ----------
    index : int
        Of the rank.
    work_s : ndarray, shape (ranks, len(WORK))
    waited_s : float
        Which the others waited for it, on average.
    """
    others_s = (work_s.sum(axis=0) - work_s[index]) / (len(work_s) - 1)
    more_s = work_s[index] - others_s
    found = dict(zip(WORK, np.maximum(more_s, 0.0).tolist()))
    found["exchange"] = max(0.0, float(waited_s - more_s.sum()))
    return found


def _counts_of(steps, recorded):
    """Return how many steps each step with a meeting stands for."""
    counts = weights_of(steps, np.ones(len(steps), bool), recorded)
    is_recorded = np.isin(steps, recorded)
    # Before other steps there was an evaluation or a checkpoint, which is no step.
    return np.where(is_recorded, counts, 0.0) if is_recorded.any() else counts


def critical_path(meetings):
    """Return the seconds of the critical path by (index of the rank, kind).

    From one meeting to the next it goes through the work of the rank that arrives last,
    and then through the exchange, until the last rank's exit: (None, "exchange"). What
    the rank waits for requests, or spends in calls of some ranks, is exchange as well.
    """
    if not meetings.steps.size:
        return {}
    last = meetings.arrivals_s.argmax(axis=0)
    at = np.arange(last.size)
    work_s = meetings.work_s[last, at]
    exchange_s = meetings.exits_s.max(axis=0) - meetings.arrivals_s[last, at]
    exchange_s = meetings.weights * exchange_s + meetings.calls_s[last, at]
    found = {(None, "exchange"): float(exchange_s.sum())}
    for index in np.unique(last).tolist():
        for kind, seconds in zip(WORK, work_s[last == index].sum(axis=0).tolist()):
            found[index, kind] = seconds
    return {key: seconds for key, seconds in found.items() if seconds > 0}
