"""The sections of a job file: ``[pool]``, and a ``[[job]]`` for each job or sweep."""

import os
import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from pympi_train.config import config as configuration
from pympi_train.errors import ConfigError
from pympi_train.keys import MOST, key, section
from pympi_train.paths import expanded, is_remote
from pympi_train.pool.jobfile.sweeps import combinations, dotted, member_names

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}")


@dataclass(frozen=True)
class PoolTable:
    """The section ``[pool]``."""

    directory: str | None = key(
        "directory of the pool, relative to the job file; default: runs/NAME for "
        "NAME.toml",
        None,
    )


@dataclass(frozen=True)
class JobTable:
    """A section ``[[job]]``: a training, or a sweep of trainings."""

    name: str = key("name of the job, and of its run directory")
    config: str = key("configuration file of the training, relative to the job file")
    set: list[str] | dict = key(
        "keys of the configuration to override: a table section.key = value, or a list "
        'of "section.key=value"',
        [],
    )
    sweep: dict | None = key(
        "a job for each value: a table section.key = list of values", None
    )
    how: str = key(
        "sweep over several keys: grid, each value with each; zip, the first values "
        "together, then the second ones",
        "grid",
        choices=("grid", "zip"),
    )
    priority: int = key("jobs with a higher one come first", 0, least=-MOST, most=MOST)
    min_ranks: int | None = key(
        "minimum number of ranks; default: as few as the configuration allows",
        None,
        least=1,
        most=MOST,
    )
    max_ranks: int | None = key(
        "maximum number of ranks; default: as many as the configuration allows",
        None,
        least=1,
        most=MOST,
    )
    gpus: int = key(
        "1: each rank of the job needs a GPU that no other job uses", 0, choices=(0, 1)
    )
    memory_gb: float | None = key("memory of each rank, in GB", None, above=0)
    after: str | list[str] = key(
        "jobs that must have finished before this one starts; the name of a sweep "
        "stands for all its jobs",
        [],
    )
    retries: int = key("how often it is tried again if it fails", 0, least=0, most=MOST)


class JobSection:
    """One ``[[job]]`` of a job file, after the checks that need no other file.

    Attributes
    ----------
    table : JobTable
    where : str
        Beginning of messages.
    names : list of str
        Those of its jobs: its own name, or those of the jobs of its sweep.
    values : list of dict
        Of each job, the values of the sweep by "section.key".
    after : list of str
        As it is written.
    """

    def __init__(self, table, number, path):
        name = table.get("name")
        named = repr(name) if isinstance(name, str) else f"number {number}"
        self.path, self.where = path, f"{path}: [[job]] {named}"
        self.table = section(JobTable, table, self.where)
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{self.where}: a name has letters, digits and . _ + = - only, begins "
                "with a letter or a digit, and has at most 100 characters"
            )
        self.after = _as_list(self.table.after)
        self.names, self.values = [name], [{}]
        if self.table.sweep is not None:
            self.values = self._values(f"{self.where} sweep")
            self.names = member_names(name, len(self.values))
        elif self.table.how != "grid":
            raise ConfigError(f"{self.where}: how is for a sweep, and there is none")

    def _values(self, where):
        sweep = dotted(self.table.sweep, where)
        for path in sweep:
            _require_key(path, f"{where} {path}")
        return combinations(sweep, self.table.how, where)

    def source(self):
        """Return the absolute path of the configuration file."""
        where = f"{self.where} config"
        name = expanded(self.table.config, where)
        if is_remote(name):
            raise ConfigError(f"{where}: expected a file, got the URL {name}")
        source = os.path.abspath(Path(self.path).parent / name)
        if os.path.exists(source) and os.path.samefile(source, self.path):
            raise ConfigError(
                f"{where}: the job file names itself; expected the configuration file "
                "of a training"
            )
        return source

    def tables(self, tables, values):
        """Return the tables of a configuration as one job changes them.

        The run directory is left out: it is given by the pool.
        """
        tables, changes = deepcopy(tables), self.table.set
        if isinstance(tables.get("output"), dict):
            tables["output"].pop("directory", None)
        where = f"{self.where} set"
        if isinstance(changes, list):
            for text in changes:
                _require_key(text.partition("=")[0], f"{where} {text}")
                configuration.set_by_text(tables, text, f"{where} ")
        else:
            for path, value in dotted(changes, where).items():
                _require_key(path, f"{where} {path}")
                configuration.set_key(tables, path, value, f"{where} {path}")
        for path, value in values.items():
            where = f"{self.where} sweep {path}"
            configuration.set_key(tables, path, value, where)
        return tables


def _require_key(path, where):
    """Raise ConfigError unless ``path`` is a key that a job may set."""
    configuration.key_field(path, where)
    if path.strip() == "output.directory":
        raise ConfigError(
            f"{where}: each job has its own run directory, jobs/NAME in that of the "
            "pool; set [pool] directory"
        )


def _as_list(value):
    return [value] if isinstance(value, str) else value
