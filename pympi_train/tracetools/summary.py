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
from pympi_train.tracetools.straggler import find_straggler, wait_shares

FORWARD = KINDS.index("forward")


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
        ``waits`` as for `wait_shares`, None without a call that all ranks make;
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
    straggler, waits, path = None, None, {}
    if meetings is not None and meetings.steps.size:
        path = critical_path(meetings)
        straggler = find_straggler(meetings, sum(path.values()))
        waits = wait_shares(meetings, sum(path.values()))
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
        "waits": waits,
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
