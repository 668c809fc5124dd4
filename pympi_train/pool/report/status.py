"""The status of a pool: its jobs, their ranks, progress and estimated ends."""

import time

from pympi_train.errors import DataError
from pympi_train.pool import history as states
from pympi_train.pool.events import EVENTS, is_running, read_history, read_progress
from pympi_train.pool.report.records import read_records
from pympi_train.pool.report.texts import ranks_text, score_text, shortened, varied_text
from pympi_train.pool.report.utilisation import measure_utilisation, utilisation_line
from pympi_train.runs.speech import counted, in_columns, seconds_text

SHOWN_JOBS = 60
# The order in which jobs are shown if there are more.
URGENCY = (
    states.RUNNING,
    states.FAILED,
    states.SKIPPED,
    states.CANCELLED,
    states.INTERRUPTED,
    states.WAITING,
    states.FINISHED,
)
HEADINGS = ("job", "status", "ranks", "nodes", "step", "time", "left", "score", "")


def describe_pool(directory):
    """Return the status of the pool in a directory; it may still run.

    Returns
    -------
    dict
        directory; state: running, finished, interrupted or killed; ranks; sessions: how
        often it was started; left_s: estimated seconds to the end, or None; jobs: list
        of dict (see `_job`), in the order of submission; counts: jobs by status;
        utilisation: see `measure_utilisation`.

    Raises
    ------
    DataError
        If no pool has begun there, or its log is damaged.
    """
    history, now_s, progress = load_pool(directory)
    records, last = read_records(directory), history.sessions[-1]
    is_open = last.end_s is None
    jobs = [
        _job(job, now_s, progress.get(job.name), records.get(job.name, {}))
        | {"nodes": nodes_of(job, history)}
        for job in history.jobs.values()
    ]
    counts = {s: len(history.with_status(s)) for s in URGENCY}
    return {
        "directory": str(directory),
        "state": "running" if is_open else last.status,
        "ranks": last.n_ranks,
        "sessions": len(history.sessions),
        "left_s": estimate_left(jobs, last.n_ranks) if is_open else None,
        "jobs": jobs,
        "counts": {state: n for state, n in counts.items() if n},
        "utilisation": measure_utilisation(history, now_s),
    }


def load_pool(directory):
    """Return the history of a pool, the time up to which it is known, and progress.

    A session that was killed has ended in the result, when something was last written.

    Returns
    -------
    (History, float, dict)
        Progress by the names of the running jobs, with ``left_s``, seconds to the end
        or None.
    """
    history = read_history(directory)
    if not history.sessions:
        raise DataError(f"{directory}: no pool has begun there ({EVENTS})")
    written_s, progress = read_progress(directory)
    now_s = time.time()
    if not is_running(directory, history):
        begun_s = history.sessions[-1].start_s
        now_s = max(history.last_s, written_s if written_s > begun_s else 0.0)
        history.abandon(now_s)
    running = {job.name for job in history.with_status(states.RUNNING)}
    progress = {name: found for name, found in progress.items() if name in running}
    for found in progress.values():
        found["left_s"] = _left(found, now_s - written_s)
    return history, now_s, progress


def _left(progress, age_s):
    """Return the seconds that a job takes yet, by the time of its last steps."""
    numbers = [progress.get(key) for key in ("step", "steps", "step_s")]
    if not all(isinstance(number, (int, float)) for number in numbers):
        return None
    step, steps, step_s = numbers
    return max((steps - step) * step_s - age_s, 0.0)


def _job(job, now_s, progress, record):
    """Return what is told of a job."""
    progress = progress or {}
    return {
        "name": job.name,
        "status": job.status,
        "ranks": job.ranks,
        "step": progress.get("step"),
        "steps": progress.get("steps"),
        "epoch": progress.get("epoch"),
        "epochs": progress.get("epochs"),
        "seconds": job.seconds(now_s),
        "left_s": progress.get("left_s"),
        "priority": job.priority,
        "attempts": job.attempts,
        "rank_seconds": sum(len(s.ranks) * s.seconds(now_s) for s in job.stays),
        "directory": job.directory,
        "varied": record.get("varied", {}),
        "error": job.error,
        "result": job.result,
    }


def nodes_of(job, history):
    """Return the numbers of the nodes of a job's ranks; none if there is only one."""
    if not job.stays:
        return []
    stay = job.stays[-1]
    nodes = history.sessions[stay.session].nodes
    if len(set(nodes)) < 2:
        return []
    return sorted({nodes[rank] for rank in stay.ranks if rank < len(nodes)})


def estimate_left(jobs, n_ranks):
    """Return the estimated seconds until all jobs have ended, or None.

    Each waiting job counts as the mean of the others, as far as is known; all ranks
    share the work, and no job ends before its own time.
    """
    running = [job for job in jobs if job["status"] == states.RUNNING]
    if any(job["left_s"] is None for job in running):
        return None
    todo = [job["left_s"] * len(job["ranks"]) for job in running]
    sizes = [job["rank_seconds"] for job in jobs if job["status"] == states.FINISHED]
    sizes += [job["rank_seconds"] + more for job, more in zip(running, todo)]
    n_waiting = sum(job["status"] == states.WAITING for job in jobs)
    if n_waiting and not sizes:
        return None
    mean = sum(sizes) / len(sizes) if sizes else 0.0
    shared_s = (sum(todo) + n_waiting * mean) / n_ranks
    return max([shared_s, *(job["left_s"] for job in running)])


def status_lines(found):
    """Return the lines of a table of what `describe_pool` returned."""
    ranks, jobs = counted(found["ranks"], "rank"), found["jobs"]
    head = f"pool     {found['directory']}: {found['state']}, {ranks}"
    if found["sessions"] > 1:
        head += f", started {found['sessions']} times"
    if found["left_s"] is not None:
        head += f", about {seconds_text(found['left_s'])} left"
    shown = jobs
    if len(jobs) > SHOWN_JOBS:
        shown = sorted(jobs, key=lambda job: URGENCY.index(job["status"]))[:SHOWN_JOBS]
    lines = [head, "", *in_columns(_without_empty([HEADINGS, *map(_row, shown)]))]
    if len(jobs) > len(shown):
        lines.append(f"... and {len(jobs) - len(shown):,} more; --json has all")
    counts = ", ".join(f"{n:,} {state}" for state, n in found["counts"].items())
    return [
        *lines,
        "",
        f"jobs     {len(jobs):,}: {counts}" if jobs else "jobs     none yet",
        f"time     {seconds_text(found['utilisation']['makespan_s'])}",
        f"use      {utilisation_line(found['utilisation'])}",
    ]


def _row(job):
    step = "" if job["step"] is None else f"{job['step']:,}"
    if job["steps"]:
        step += f"/{job['steps']:,}"
    return (
        job["name"],
        job["status"],
        ranks_text(job["ranks"]),
        ranks_text(job["nodes"]),
        step,
        seconds_text(job["seconds"]) if job["attempts"] else "",
        "" if job["left_s"] is None else seconds_text(job["left_s"]),
        score_text(job["result"]),
        shortened(job["error"] or varied_text(job["varied"])),
    )


def _without_empty(rows):
    """Return a table without the columns that have no cell; the last one stays."""
    columns = list(zip(*rows))
    kept = [column for column in columns[:-1] if any(column[1:])]
    return list(zip(*kept, columns[-1]))
