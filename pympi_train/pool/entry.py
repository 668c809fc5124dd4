"""A job of a pool, as the coordinator knows it."""

import hashlib
import json
import time
from dataclasses import dataclass, field

from pympi_train.errors import ConfigError
from pympi_train.pool.history import FINISHED, RUNNING, WAITING
from pympi_train.pool.schedule import Running

FREE_SECTIONS = ("output", "checkpoint", "elastic", "parallel", "search")
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
    asked_s : float
        When its ranks were asked to change.
    rank_s : float
        Seconds that ranks have spent with this attempt, all together.
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
    asked_s: float = 0.0
    rank_s: float = 0.0
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

    def account(self, n_ranks):
        """Note that it has ``n_ranks`` ranks from now on."""
        (since_s, n_before), now_s = self._since, time.monotonic()
        self.rank_s += n_before * (now_s - since_s)
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
