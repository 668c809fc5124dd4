"""A job of a pool, as the coordinator knows it."""

import hashlib
import json
import time
from dataclasses import dataclass, field

from pympi_train.errors import ConfigError
from pympi_train.pool.history import (
    CANCELLED,
    FINISHED,
    INTERRUPTED,
    RUNNING,
    WAITING,
)
from pympi_train.pool.schedule import Running

FREE_SECTIONS = ("output", "checkpoint", "elastic", "parallel", "search")
NEW = 0.5  # weight of a new measurement of a step's time
STUCK = "stuck"  # a job that has failed, but whose ranks have not come back


@dataclass
class PoolJob:
    """A job of a pool, as the coordinator knows it.

    Attributes
    ----------
    name : str
    needs : Needs
    text : str
        The configuration.
    directory : str
    after : tuple of str
        Names of the jobs that have to be finished before.
    retries : int
        How often it is begun again after a failure.
    resume : bool
        Whether it goes on from its newest checkpoint.
    status : str
    result, error, cause : dict, str or None
        Once it is over; ``cause`` is the name of the class of its error.
    digest : str
        Of the configuration, see `config_digest`.
    attempt : int
        How often it was started.
    running : Running or None
    progress : dict
        What was told last.
    is_cancelled : bool
    """

    name: str
    needs: object
    text: str
    directory: str
    after: tuple = ()
    retries: int = 0
    resume: bool = False
    status: str = WAITING
    result: dict | None = None
    error: str | None = None
    cause: str | None = None
    digest: str = ""
    attempt: int = 0
    running: Running | None = None
    is_cancelled: bool = False
    progress: dict = field(default_factory=dict)
    _asked_s: float = 0.0  # when its ranks were asked to change
    _rank_s: float = 0.0  # that ranks have spent with this attempt, all together
    _since: tuple = (0.0, 0)

    @property
    def is_over(self):
        return self.status not in (WAITING, RUNNING)

    def follow(self, before, resume):
        """Be as an earlier start of the pool has left it; see `Pool.submit`.

        ``before`` is its JobState, or None.

        Raises
        ------
        ConfigError
            If ``resume`` is None, and it has finished with another configuration.
        """
        if before is not None:
            self.attempt = before.attempts
            if before.status == FINISHED and resume is not False:
                if resume is None:
                    self._require_digest(before.digest)
                self.status, self.result = FINISHED, before.result
            if resume is None:
                resume = before.begun in (None, self.digest)
        self.resume = bool(resume)

    def _require_digest(self, digest):
        """Raise ConfigError if ``digest`` is that of another configuration."""
        if digest not in (None, self.digest):
            raise ConfigError(
                f"job {self.name} has finished in an earlier start of this pool, with "
                "another configuration: give it another name, or submit it with "
                "resume = False to train it again, or True to keep the result"
            )

    def begin(self, ranks):
        """Run on ``ranks``, in a new attempt."""
        self.attempt += 1
        self.status, self.running = RUNNING, Running(self.needs, ranks)
        self._rank_s = 0.0
        self._account(len(ranks))

    def advance(self, report):
        """Take note of what it reports after some steps, see `Meter`."""
        running, n_ranks = self.running, len(self.running.ranks)
        running.steps_left = report["steps"] - report["step"]
        keys = ("step", "steps", "epoch", "epochs", "step_s")
        self.progress = {key: report[key] for key in keys} | {"ranks": running.ranks}
        if running.is_changing:
            return
        before = running.step_s.get(n_ranks, report["step_s"])
        running.step_s[n_ranks] = NEW * report["step_s"] + (1 - NEW) * before
        running.exchange = report["exchange"]

    def change(self, ranks):
        """Take note that it is asked to go on with ``ranks``: fewer, or more."""
        running = self.running
        if len(ranks) > len(running.ranks):
            running.ranks = ranks
        running.is_changing, self._asked_s = True, time.monotonic()

    def settle(self, n_ranks):
        """Go on with the first ``n_ranks`` of its ranks; return the others."""
        running = self.running
        left = running.ranks[n_ranks:]
        running.ranks, running.is_changing = running.ranks[:n_ranks], False
        running.cost_s = time.monotonic() - self._asked_s
        self._account(n_ranks)
        return left

    def end(self, status, report):
        """Be over, with what its last report says; return what the log is told."""
        self.error, self.result = report.get("error"), report.get("result")
        self.cause = report.get("cause")
        is_cancelled = status == INTERRUPTED and self.is_cancelled
        self.status = CANCELLED if is_cancelled else status
        told = {"error": self.error, "result": self.result}
        if self.running is not None:
            self._account(0)
            training_s = report.get("training_s", 0.0)
            startup_s = max(0.0, self._rank_s - training_s)
            told["rank_seconds"] = {"training": training_s, "startup": startup_s}
        return told

    def try_again(self):
        """Wait for another attempt after a failure; return whether there is one."""
        if self.retries == 0 or self.is_cancelled:
            return False
        self.retries -= 1
        # Before it has begun, its directory may have a run of other settings.
        has_begun = self.running is not None and self.running.has_begun
        self.resume = self.resume or has_begun
        self.status, self.running, self.progress = WAITING, None, {}
        return True

    def _account(self, n_ranks):
        """Note that it has ``n_ranks`` ranks from now on."""
        (since_s, n_before), now_s = self._since, time.monotonic()
        self._rank_s += n_before * (now_s - since_s)
        self._since = now_s, n_ranks

    @property
    def key(self):
        """What tells the messages of this attempt from those of others."""
        return {"name": self.name, "attempt": self.attempt}


def config_digest(config):
    """Return a hash of what a configuration says about the steps of a training: hex."""
    sections = config.to_dict()
    for name in FREE_SECTIONS:
        del sections[name]
    text = json.dumps(sections, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
