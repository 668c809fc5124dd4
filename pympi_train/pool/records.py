"""What a pool's directory says of its jobs beside the log: jobs.json."""

import json
from pathlib import Path

from pympi_train.errors import ConfigError
from pympi_train.pool.events import earlier_pool, read_history
from pympi_train.pool.history import FINISHED
from pympi_train.runs.output import MALFORMED, replacing

JOBS = "jobs.json"


def read_records(directory):
    """Return what is known of the jobs of a pool, by name.

    Returns
    -------
    dict
        config (the configuration file), varied (values of the sweep), sha256 (of the
        configuration as it is written). Empty if there is nothing that can be read.
    """
    try:
        found = json.loads((Path(directory) / JOBS).read_text(encoding="utf-8"))
        return {name: dict(record) for name, record in found.items()}
    except (OSError, *MALFORMED):
        return {}


def write_records(plan):
    """Write what is known of the jobs of a `Plan`; keep those of earlier plans.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    records = read_records(plan.directory)
    for job in plan.jobs:
        told = {"config": job.source, "varied": job.varied, "sha256": job.digest}
        records[job.name] = told
    with replacing(Path(plan.directory) / JOBS) as temporary:
        text = json.dumps(records, indent=1, default=str) + "\n"
        temporary.write_text(text, encoding="utf-8")


def jobs_left(plan, resume):
    """Return the jobs of a `Plan` that are not finished, before the pool begins.

    Parameters
    ----------
    plan : Plan
    resume : bool
        Whether the pool goes on from an earlier one, if there is one.

    Raises
    ------
    ConfigError
        If a finished job has another configuration now, or there is an earlier pool and
        it is not to go on.
    DataError
        If its log is damaged.
    """
    history = read_history(plan.directory)
    if not history.sessions:
        return plan.jobs
    if not resume:
        raise ConfigError(earlier_pool(plan.directory))
    records, left = read_records(plan.directory), []
    for job in plan.jobs:
        state = history.jobs.get(job.name)
        if state is None or state.status != FINISHED:
            left.append(job)
            continue
        known = records.get(job.name, {})
        if known.get("sha256", job.digest) != job.digest:
            raise ConfigError(
                f"job {job.name!r} has finished in {plan.directory}, but its "
                "configuration has changed since: give the job another name, or the "
                "pool another directory"
            )
    return left
