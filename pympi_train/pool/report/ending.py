"""The work of a pool from a plan to its picture; on rank 0."""

import os

from pympi_train.pool.history import FINISHED
from pympi_train.pool.report import gantt
from pympi_train.pool.report.chart import chart_lines
from pympi_train.pool.report.records import write_records
from pympi_train.pool.report.status import describe_pool, load_pool, status_lines
from pympi_train.runs.recovery.signals import INTERRUPTED

DRAWN_FROM_S = 10.0  # shortest pool with a picture, which takes one second
UNFINISHED = 1  # exit status if jobs have failed


def work_through(pool, plan, kept=()):
    """Submit the jobs of a plan to a pool, and wait for them; errors are in its log.

    Parameters
    ----------
    pool : Pool
    plan : JobPlan
    kept : sequence of str
        Jobs that have finished before, as `check_earlier` returns them.
    """
    kept = frozenset(kept)
    write_records(plan)
    futures = {}
    for job in plan.jobs:
        futures[job.name] = pool.submit(
            job.config,
            name=job.name,
            priority=job.priority,
            min_ranks=job.min_ranks,
            max_ranks=job.max_ranks,
            gpus=job.gpus,
            memory_gb=job.memory_gb,
            after=[futures[name] for name in job.after],
            retries=job.retries,
            resume=True if job.name in kept else None,
        )
    for _ in pool.as_completed():
        pass


def finish_pool(plan, say):
    """Print the table of all jobs and the picture; return the status of the pool.

    Returns
    -------
    dict
        As `describe_pool`; picture: its path or None; exit_status: 0 if all jobs of the
        plan are finished, 75 if others go on with ``--resume``, else 1.
    """
    found = describe_pool(plan.directory)
    say()
    for line in status_lines(found):
        say(line)
    found["picture"] = _picture(plan.directory, found["utilisation"]["makespan_s"], say)
    status = {job["name"]: job["status"] for job in found["jobs"]}
    left = [job.name for job in plan.jobs if status.get(job.name) != FINISHED]
    found["exit_status"] = UNFINISHED if left else 0
    if left and found["state"] != FINISHED:
        found["exit_status"] = INTERRUPTED
        say("ended    interrupted; the same command with --resume goes on")
    return found


def draw_pool(directory, path=None):
    """Draw who used which rank when; return the path of the picture.

    Parameters
    ----------
    directory : path
        That of the pool.
    path : path, optional
        The file; in the pool's directory by default.
    """
    history, now_s, _ = load_pool(directory)
    path = path or os.path.join(directory, gantt.PICTURE)
    return str(gantt.draw_gantt(history, now_s, path))


def _picture(directory, makespan_s, say):
    """Draw the picture of a pool that has ended, or print a chart of characters."""
    if makespan_s < DRAWN_FROM_S:
        say(f"picture  pympi-train pool status {directory} --picture")
        return None
    try:
        path = draw_pool(directory)
    except Exception as error:  # not fatal: the jobs are complete and saved
        say(f"picture  not drawn: {error}")
        say()
        history, now_s, _ = load_pool(directory)
        for line in chart_lines(history, now_s):
            say(line)
        return None
    say(f"picture  {path}")
    return path
