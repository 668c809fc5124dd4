"""What a pool's directory says of its jobs beside the log: jobs.json."""

import json
from pathlib import Path

from pympi_train.errors import MALFORMED, ConfigError
from pympi_train.pool.entry import config_digest
from pympi_train.pool.events import earlier_pool, read_history
from pympi_train.pool.history import FINISHED
from pympi_train.runs.output import replacing

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
    """Write what is known of the jobs of a `JobPlan`; keep those of earlier plans.

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


def check_earlier(plan, resume):
    """Return the names of the finished jobs of a `JobPlan`, before the pool begins.

    Parameters
    ----------
    plan : JobPlan
    resume : bool
        Whether the pool goes on from an earlier one, if there is one.

    Raises
    ------
    ConfigError
        If a finished job has another configuration now, there is an earlier pool and it
        is not to go on, or jobs.json is no file.
    DataError
        If its log is damaged.
    """
    if (Path(plan.directory) / JOBS).is_dir():
        text = f"{plan.directory}: {JOBS} is a folder, not a file of a pool: remove it"
        raise ConfigError(text)
    history = read_history(plan.directory)
    if not history.sessions:
        return []
    if not resume:
        raise ConfigError(earlier_pool(plan.directory))
    finished = {job.name for job in history.with_status(FINISHED)}
    kept = [job for job in plan.jobs if job.name in finished]
    records = read_records(plan.directory)
    for job in kept:
        known = records.get(job.name, {}).get("sha256")
        if known is None:  # jobs.json was lost: the log has a digest with defaults
            state = history.jobs[job.name]
            is_same = state.digest in (None, config_digest(job.config))
        else:
            is_same = known == job.digest
        if not is_same:
            raise ConfigError(
                f"job {job.name!r} has finished in {plan.directory}, but its "
                "configuration has changed since: give the job another name, or the "
                "pool another directory"
            )
    return [job.name for job in kept]
