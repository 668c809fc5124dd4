"""Job files: the trainings that a pool is to do, as TOML."""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pympi_train.config import config as configuration
from pympi_train.config.config import Config
from pympi_train.errors import ConfigError
from pympi_train.keys import require_known, section
from pympi_train.paths import expanded, is_remote, require_utf8
from pympi_train.pool.jobfile.order import order_jobs
from pympi_train.pool.jobfile.sweeps import MAX_JOBS
from pympi_train.pool.jobfile.tables import JobSection, PoolTable
from pympi_train.runs.elastic.requests import Bounds
from pympi_train.runs.speech import counted

RUNS = "jobs"  # folder of the run directories, in the pool's directory


@dataclass(frozen=True)
class PlannedJob:
    """A job, ready to be submitted.

    Attributes
    ----------
    name : str
    config : Config
        Its ``[output] directory`` is the job's own.
    source : str
        The configuration file.
    varied : dict
        The values of the sweep, by "section.key".
    digest : str
        SHA-256, hex, of the configuration as it is written, without defaults.
    min_ranks, max_ranks : int
        They fit the configuration and the pool.
    priority, gpus, memory_gb, retries
        As in `JobTable`.
    after : tuple of str
        Names of jobs.
    """

    name: str
    config: Config
    source: str
    varied: dict
    digest: str
    min_ranks: int
    max_ranks: int
    priority: int
    gpus: int
    memory_gb: float | None
    retries: int
    after: tuple


class JobPlan(NamedTuple):
    """The directory of a pool, and its jobs; those come first that others need."""

    directory: str
    jobs: list


def read_plan(path, n_ranks):
    """Return the `JobPlan` of a job file, read by this process.

    Parameters
    ----------
    path : str
    n_ranks : int
        Ranks of the pool.

    Raises
    ------
    ConfigError
        If the file, or the configuration of a job, cannot be read or is not valid, or a
        job can never run on so many ranks.
    """
    tables = configuration.parse_tables(configuration.read_text(path), path)
    require_known(tables, ("pool", "job"), path, "section")
    directory = _directory(tables.get("pool", {}), path)
    found = tables.get("job", [])
    if not isinstance(found, list) or not all(isinstance(t, dict) for t in found):
        raise ConfigError(f"{path}: job must be in double brackets: [[job]]")
    if not found:
        raise ConfigError(f"{path}: no job; each one begins with [[job]]")
    entries = [JobSection(table, number, path) for number, table in enumerate(found, 1)]
    n_jobs = sum(len(entry.names) for entry in entries)
    if n_jobs > MAX_JOBS:
        raise ConfigError(f"{path}: {n_jobs:,} jobs, at most {MAX_JOBS:,} are possible")
    jobs, parsed = [], {}
    for entry, after in order_jobs(entries, path):
        jobs += _jobs(entry, after, directory, n_ranks, parsed)
    _require_own_checkpoints(jobs, path)
    return JobPlan(directory, jobs)


def _directory(table, path):
    """Return the absolute path of the pool's directory."""
    name = section(PoolTable, table, f"{path}: [pool]").directory
    if name is None:
        name = os.path.join("runs", Path(path).stem)
    where = f"{path}: [pool] directory"
    name = expanded(name, where)
    if is_remote(name):
        raise ConfigError(f"{where}: expected a folder, got the URL {name}")
    return require_utf8(os.path.abspath(Path(path).parent / name), where)


def _jobs(entry, after, directory, n_ranks, parsed):
    """Return the jobs of an entry; ``parsed`` keeps the configurations of files."""
    source = entry.source()
    if source not in parsed:
        try:
            text = configuration.read_text(source)
        except ConfigError as error:
            raise ConfigError(f"{entry.where} config: {error}") from error
        parsed[source] = configuration.parse_tables(text, source)
    t, jobs, seen = entry.table, [], {}
    for name, values in zip(entry.names, entry.values):
        tables = entry.tables(parsed[source], values)
        where = f"{entry.path}: job {name!r}, {t.config}"
        config = configuration.from_tables(tables, where, Path(source).parent)
        first = seen.setdefault(repr(config), values)
        if first is not values:
            same = f"{first} and {values} are the same training"
            raise ConfigError(f"{entry.where} sweep: {same}")
        own = os.path.join(directory, RUNS, name)
        output = dataclasses.replace(config.output, directory=own)
        config = dataclasses.replace(config, output=output)
        least, most = _rank_bounds(t, config, n_ranks, f"{entry.path}: job {name!r}")
        jobs.append(
            PlannedJob(
                name=name,
                config=config,
                source=source,
                varied=values,
                digest=_digest(tables),
                min_ranks=least,
                max_ranks=most,
                priority=t.priority,
                gpus=t.gpus,
                memory_gb=t.memory_gb,
                retries=t.retries,
                after=after,
            )
        )
    return jobs


def _digest(tables):
    text = json.dumps(tables, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _rank_bounds(table, config, n_ranks, where):
    """Return the minimum and maximum number of ranks of a job."""
    if config.elastic.survive or config.elastic.ranks is not None:
        name = "survive" if config.elastic.survive else "ranks"
        raise ConfigError(
            f"{where}: [elastic] {name}: the pool gives ranks to its jobs; leave it "
            "out, and use min_ranks and max_ranks"
        )
    bounds = Bounds.of(config, n_ranks)
    if bounds.least > n_ranks:
        raise ConfigError(
            f"{where}: {bounds.why} takes at least {bounds.least} ranks, but the pool "
            f"has {counted(n_ranks, 'rank')}: start more"
        )
    least = table.min_ranks or bounds.least
    most = table.max_ranks or n_ranks
    if least > most and table.max_ranks is not None:
        if table.min_ranks is None:
            needs = f"{bounds.why} takes at least {least} ranks"
            raise ConfigError(f"{where}: max_ranks = {most}, but {needs}: raise it")
        raise ConfigError(f"{where}: min_ranks = {least} > max_ranks = {most}")
    if least > n_ranks:
        raise ConfigError(
            f"{where}: min_ranks = {least}, but the pool has "
            f"{counted(n_ranks, 'rank')}: start more, or lower it"
        )
    refused = bounds.refusal(least)
    if refused:
        raise ConfigError(f"{where}: min_ranks = {least}: {refused}")
    return least, min(most, bounds.most)


def _require_own_checkpoints(jobs, path):
    """Raise ConfigError if two jobs would save to one folder."""
    users = {}
    for job in jobs:
        other = users.setdefault(job.config.checkpoints, job.name)
        if other != job.name:
            raise ConfigError(
                f"{path}: jobs {other!r} and {job.name!r} would both save to "
                f"[checkpoint] directory {job.config.checkpoints}: leave it out, and "
                "each has its checkpoints in its own run directory"
            )
