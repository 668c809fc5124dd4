"""Requests to change the ranks of a training that runs: two small files.

Rank 0 keeps STATUS in the run directory up to date, and looks for REQUEST, which
``pympi-train resize`` writes.
"""

import json
import os
import stat
import time
from contextlib import suppress
from typing import NamedTuple

from pympi_train.errors import ConfigError, DataError
from pympi_train.runs.lock import is_locked
from pympi_train.runs.output import replacing
from pympi_train.runs.speech import counted

STATUS, REQUEST = "ranks.json", "resize.json"
EVERY_S = 1.0  # between two looks for a request
MAX_BYTES = 4096  # of either file
ABSENT = FileNotFoundError, NotADirectoryError


class Bounds(NamedTuple):
    """The numbers of ranks on which a training can run.

    Attributes
    ----------
    job : int
        Ranks of the job.
    least, most : int
    why : str
        What sets the bounds, besides the job; may be empty.
    """

    job: int
    least: int
    most: int
    why: str = ""

    @classmethod
    def of(cls, config, n_ranks):
        """Return the bounds for a configuration in a job of ``n_ranks`` ranks."""
        parallel = config.parallel
        if config.elastic.survive:
            return cls(n_ranks, n_ranks, n_ranks, "[elastic] survive")
        if parallel.strategy == "server":
            why = f"[parallel] servers = {parallel.servers}"
            return cls(n_ranks, parallel.servers + 1, n_ranks, why)
        n_groups = parallel.n_groups or n_ranks
        if n_groups >= n_ranks:
            return cls(n_ranks, 1, n_ranks)
        why = f"[parallel] virtual_shards = {n_groups}"
        return cls(n_ranks, 1, n_groups, why)

    def refusal(self, number):
        """Return why ``number`` ranks cannot train, or None."""
        if number > self.job:
            return f"the job has {counted(self.job, 'rank')}"
        if not self.least <= number <= self.most:
            takes = f"takes between {self.least} and {self.most}"
            if self.least > self.most:
                takes = f"takes {counted(self.least, 'rank')} or more"
            elif self.least == self.most:
                takes = f"takes only {self.most}"
            return f"{self.why or 'it'} {takes}"
        return None


class Requests:
    """Looks for requests to change the ranks of a training; on rank 0.

    Parameters
    ----------
    folder : path
        The run directory. A request that an earlier run has left in it is removed.
    bounds : Bounds
    say : callable
        Takes a line for the user.
    signal_of_parked : callable
        Returns the number of a signal that a rank which does not train has received,
        or 0.

    Attributes
    ----------
    wanted : int or None
        Number of ranks to go on with.
    """

    def __init__(self, folder, bounds, say, signal_of_parked):
        self._folder, self._bounds, self._say = folder, bounds, say
        self.signal_of_parked = signal_of_parked
        self.wanted, self._n_active, self._last_s = None, None, -EVERY_S
        self._told = None  # the warning about a request that cannot be removed
        self._remove(REQUEST)

    def tell(self, n_active):
        """Write how many ranks are active."""
        self.wanted, self._n_active = None, n_active
        told = {**self._bounds._asdict(), "active": n_active}
        try:
            with replacing(os.path.join(self._folder, STATUS)) as temporary:
                temporary.write_text(json.dumps(told) + "\n", encoding="utf-8")
        except DataError as error:  # no reason to end the training
            self._say(f"warning  `pympi-train resize` cannot be used: {error}")

    def is_time(self, trainer=None):
        """Return whether the last look is so long ago that it is time for another."""
        now_s = time.monotonic()
        if now_s - self._last_s < EVERY_S:
            return False
        self._last_s = now_s
        return True

    def look(self):
        """Return whether the ranks are to change; see ``wanted``."""
        path = os.path.join(self._folder, REQUEST)
        if self.wanted is not None or not os.path.exists(path):
            return self.wanted is not None
        try:
            number = _whole(_content(path), "ranks", path)
            why = self._bounds.refusal(number)
        except DataError as error:
            number, why = None, str(error)
        self._remove(REQUEST)
        if why is not None:
            asked = "" if number is None else f" to {counted(number, 'rank')}"
            warning = f"warning  no change{asked}: {why}; training goes on"
            if warning != self._told:
                self._say(warning)
            self._told = warning if os.path.lexists(path) else None
        elif number != self._n_active:
            self.wanted = number
        return self.wanted is not None

    def close(self):
        """Remove both files."""
        self._remove(REQUEST)
        self._remove(STATUS)

    def _remove(self, name):
        with suppress(OSError):
            os.unlink(os.path.join(self._folder, name))


def request_resize(folder, number):
    """Ask the training in a run directory to go on with ``number`` ranks.

    Returns
    -------
    dict
        directory, job, active (ranks now), ranks (as asked for).

    Raises
    ------
    DataError
        If no training runs there.
    ConfigError
        If it cannot run on so many ranks.
    """
    path = os.path.join(folder, STATUS)
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such run directory")
    if not os.path.exists(path) or not is_locked(folder):
        raise DataError(
            f"{folder}: no training runs there: it has ended, was killed, or has not "
            "begun its first step"
        )
    found = _content(path)
    numbers = [_whole(found, key, path) for key in ("job", "least", "most", "active")]
    bounds = Bounds(*numbers[:3], str(found.get("why")))
    why = bounds.refusal(number)
    if why is not None:
        raise ConfigError(f"{folder}: no change to {counted(number, 'rank')}: {why}")
    with replacing(os.path.join(folder, REQUEST)) as temporary:
        temporary.write_text(json.dumps({"ranks": number}) + "\n", encoding="utf-8")
    counts = {"job": bounds.job, "active": numbers[3], "ranks": number}
    return {"directory": folder, **counts}


def _content(path):
    """Return the dict in a small JSON file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would block
            raise DataError(f"{path}: is not a file")
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
        found = json.loads(text)
    except ABSENT as error:
        raise DataError(f"{path}: is gone") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object, found {text[:40]!r}")
    return found


def _whole(found, key, path):
    """Return a whole number from 1 of the dict in a file."""
    value = found.get(key)
    if type(value) is not int or value < 1:
        text = f"{path}: {key}: expected a whole number from 1, found {value!r}"
        raise DataError(text)
    return value
