"""The rank that the others wait for, and why, from the meetings of all ranks."""

import numpy as np

from pympi_train.tracetools.meetings import WORK
from pympi_train.tracetools.sampling import weights_of

LEAST_SHARE = 0.02  # of the time: a smaller wait names no straggler
LEAST_EXCESS = 1.5  # times the wait that a rank causes on average


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

    It is the rank that the others waited for the longest in most steps. If that is no
    straggler, it is the one that they waited for the longest in all: a rank that writes
    checkpoints is waited for between steps, and in few of them. The cause is the kind
    of work in which it exceeds the mean of the others the most, in these steps. It is
    the exchange if more of the waits has no such reason: the rank arrives late
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
    totals_s = caused_s.sum(axis=1)
    most_steps = int(np.bincount(blamed, counts, minlength=n_ranks).argmax())
    candidates = most_steps, int(totals_s.argmax())
    found = next((i for i in candidates if _is_straggler(totals_s, i, total_s)), None)
    if found is None:
        return None
    late = (last == found) & (blamed[number] == found)
    if not late.any():
        late = last == found
    waited_s = (weights * waits_s)[:, late].sum() / (n_ranks - 1)
    excess_s = _excess_of(found, meetings.work_s[:, late].sum(axis=1), waited_s)
    cause = max(excess_s, key=excess_s.get)
    return {
        "index": found,
        "share_of_steps": float(counts[blamed == found].sum() / max(n_all, 1.0)),
        "cause": cause,
        "excess_share": excess_s[cause] / sum(excess_s.values()),
        "wait_share": float(totals_s[found] / (n_ranks - 1) / total_s),
    }


def _is_straggler(totals_s, index, total_s):
    """Return whether the others wait much for a rank, and more than for the average."""
    others_s = (totals_s.sum() - totals_s[index]) / (totals_s.size - 1)
    is_unusual = totals_s[index] >= LEAST_EXCESS * others_s
    return is_unusual and totals_s[index] >= LEAST_SHARE * total_s * (totals_s.size - 1)


def wait_shares(meetings, total_s):
    """Return how much the ranks wait for one another in meetings.

    Parameters
    ----------
    meetings : Meetings
    total_s : float
        Seconds of the critical path.

    Returns
    -------
    dict
        ``share``, of the ranks' time, a mean over ranks; ``largest_share``, of the
        other ranks' time, for the rank that they wait for the longest.
    """
    n_ranks = len(meetings.arrivals_s)
    if n_ranks < 2 or total_s <= 0:
        return {"share": 0.0, "largest_share": 0.0}
    waits_s, weights, last = waits_of(meetings)
    totals_s = np.bincount(last, (weights * waits_s).sum(axis=0), minlength=n_ranks)
    return {
        "share": float(totals_s.sum() / n_ranks / total_s),
        "largest_share": float(totals_s.max() / (n_ranks - 1) / total_s),
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
