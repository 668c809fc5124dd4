"""The training that is started again and again: its command, and how far it is."""

import os
import sys
import time
from dataclasses import dataclass

from pympi_train.checkpoint import manifest, store
from pympi_train.config.config import Config
from pympi_train.errors import UserError
from pympi_train.runs import output
from pympi_train.runs.lock import is_locked
from pympi_train.runs.recovery.resume import NEWEST, finished_result

BEGUN, ENDED = MARKS = output.SCHEMA, output.RESULT
LEAST_S = 1.0  # of [checkpoint] max_time for a start when the time is over


@dataclass
class Training:
    """A training by ``pympi-train train``.

    Parameters
    ----------
    argv : list of str
        The words from ``train`` on.
    config : Config
        As these words have it.
    resume : str or None
        Value of their ``--resume``.
    """

    argv: list
    config: Config
    resume: str | None

    def __post_init__(self):
        self._before = {}
        self._first = self.newest()
        max_time_s = self.config.checkpoint.max_time
        self._ends_s = None if max_time_s is None else time.monotonic() + max_time_s

    def newest(self):
        """Return the `store.Entry` of the newest checkpoint, or None."""
        entries = store.entries(self.config.checkpoints)
        return entries[-1] if entries else None

    def command(self, n_ranks=None):
        """Return the program of each rank, and its arguments, for the next start.

        It continues from the newest checkpoint; from the one that the user named as
        long as there is none of this launch. ``max_time`` counts from the launch on.
        If only ``n_ranks`` ranks can be started, no more than those train.
        """
        self._before = {name: self._identity(name) for name in MARKS}
        words = [*own_program(), *self.argv]
        if self.resume in (None, NEWEST) or self.newest() != self._first:
            words.append("--resume")
        if self._ends_s is not None:
            left_s = max(self._ends_s - time.monotonic(), LEAST_S)
            words += ["--set", f"checkpoint.max_time={left_s:.3f}"]
        if n_ranks is not None and (self.config.elastic.ranks or 0) > n_ranks:
            words += ["--set", f"elastic.ranks={n_ranks}"]
        return words

    def has_written(self, name):
        """Return whether the ranks have written a file since the last `command`.

        Parameters
        ----------
        name : str
            BEGUN, which they write before the first step, or ENDED, the last one.
        """
        return self._identity(name) not in (None, self._before[name])

    def is_running(self):
        """Return whether rank 0 holds the lock of the run directory, or may again.

        Locks of some file systems are known to their own node only: False then, if
        rank 0 runs on another one. With ``[elastic] survive``, another rank takes the
        lock once the data are loaded again, which takes any time.
        """
        return self.config.elastic.survive or is_locked(self.config.output.directory)

    def _identity(self, name):
        """Return what tells a file of the run directory from its next version."""
        try:
            found = os.stat(os.path.join(self.config.output.directory, name))
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def is_finished(self):
        """Return whether the run directory has the result of the whole training."""
        try:
            return finished_result(self.config) is not None
        except UserError:
            return False

    def is_out_of_time(self):
        """Return whether it was interrupted because the time of the job was over."""
        newest = self.newest()
        if newest is None:
            return False
        path = os.path.join(newest.path, manifest.NAME)
        try:
            with open(path, "rb") as file:
                content = manifest.content_of(file.read(), path)
        except (OSError, UserError):
            return False
        return manifest.values_of(content["about"]).get("out_of_time") is True


def own_program():
    """Return the words that run ``pympi-train`` as this process was started."""
    script = sys.argv[0]
    is_script = os.path.basename(script) == "pympi-train" and os.path.isfile(script)
    how = [os.path.abspath(script)] if is_script else ["-m", "pympi_train"]
    return [sys.executable, *how]
