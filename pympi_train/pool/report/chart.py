"""Who used which rank when: bars of the jobs, and a chart of characters."""

import math
import string
from typing import NamedTuple

from pympi_train.pool.history import FAILED
from pympi_train.runs.speech import seconds_text

SYMBOLS = string.ascii_letters + string.digits
SHOWN_RANKS = 32  # lines of the chart; more ranks: every n-th
LISTED_JOBS = 30


class Bar(NamedTuple):
    """A time in which a job had neighbouring ranks.

    Attributes
    ----------
    job : str
    has_failed : bool
    start_s, stop_s : float
        Seconds since the pool began; the time between sessions is left out.
    first_rank, n_ranks : int
    """

    job: str
    has_failed: bool
    start_s: float
    stop_s: float
    first_rank: int
    n_ranks: int


def session_starts(history, now_s):
    """Return when each session begins, and the end, on an axis without gaps.

    Returns
    -------
    list of float
        Seconds; one more than there are sessions.
    """
    starts = [0.0]
    for session in history.sessions:
        starts.append(starts[-1] + session.seconds(now_s))
    return starts


def bars_of(history, now_s):
    """Return the bars of all jobs, job by job."""
    starts, bars = session_starts(history, now_s), []
    for job in history.jobs.values():
        for i, stay in enumerate(job.stays):
            session = history.sessions[stay.session]
            start_s = starts[stay.session] + stay.start_s - session.start_s
            stop_s = start_s + stay.seconds(now_s)
            is_last = i == len(job.stays) - 1
            has_failed = is_last and job.status == FAILED
            for first, n in neighbours(stay.ranks):
                bars.append(Bar(job.name, has_failed, start_s, stop_s, first, n))
    return bars


def neighbours(ranks):
    """Return runs of consecutive ranks: (first, number) of each.

    >>> neighbours([4, 0, 1])
    [(0, 2), (4, 1)]
    """
    runs = []
    for rank in sorted(ranks):
        if runs and rank == sum(runs[-1]):
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((rank, 1))
    return runs


def chart_lines(history, now_s, width=72):
    """Return a chart of characters: a line for each rank, a column for each time.

    Parameters
    ----------
    history : History
    now_s : float
    width : int
        Columns of time.
    """
    total_s = session_starts(history, now_s)[-1]
    n_ranks = max(session.n_ranks for session in history.sessions)
    step = -(-n_ranks // SHOWN_RANKS)
    symbols = {name: SYMBOLS[i % len(SYMBOLS)] for i, name in enumerate(history.jobs)}
    rows = {rank: ["."] * width for rank in range(0, n_ranks, step)}
    for bar in bars_of(history, now_s) if total_s > 0 else ():
        # A column shows who has the rank in its middle.
        first, stop = (
            min(max(math.ceil(s / total_s * width - 0.5), 0), width)
            for s in (bar.start_s, bar.stop_s)
        )
        for rank in range(bar.first_rank, bar.first_rank + bar.n_ranks):
            if rank in rows:
                rows[rank][first:stop] = symbols[bar.job] * (stop - first)
    margin = len(f"rank {n_ranks - 1}")
    lines = [f"{f'rank {r}':>{margin}} |{''.join(row)}|" for r, row in rows.items()]
    end = seconds_text(total_s)
    lines.append(f"{'':{margin}}  0 s{end:>{max(width - 3, 0)}}")
    shown = list(history.jobs)[:LISTED_JOBS]
    lines += ["", *(f"{symbols[name]}  {name}" for name in shown)]
    if len(history.jobs) > len(shown):
        lines.append(f"... and {len(history.jobs) - len(shown):,} more jobs")
    return lines
