"""What the events of a pool say together: its sessions, and the state of each job."""

from dataclasses import dataclass, field

from pympi_train.errors import MALFORMED, DataError

WAITING, RUNNING, FINISHED, FAILED = "waiting", "running", "finished", "failed"
INTERRUPTED, CANCELLED, SKIPPED = "interrupted", "cancelled", "skipped"
KILLED = "killed"  # of a session
ENDINGS = (FINISHED, FAILED, INTERRUPTED, CANCELLED, SKIPPED)


@dataclass
class Session:
    """One start of the pool: it goes on in another one with ``--resume``.

    Attributes
    ----------
    start_s : float
        Seconds since 1970.
    n_ranks : int
    nodes : list of int
        Index of the node of each rank; empty if it is not known.
    end_s : float or None
        None while it may run. Of a pool that was killed, when it last wrote something.
    status : str or None
        "finished", "interrupted" or "killed"; None while it may run.
    """

    start_s: float
    n_ranks: int
    nodes: list
    end_s: float | None = None
    status: str | None = None

    def seconds(self, now_s):
        """Return its length, up to the present if it lasts."""
        return max((now_s if self.end_s is None else self.end_s) - self.start_s, 0.0)


@dataclass
class Stay:
    """A time in which a job had certain ranks; ``end_s`` is None if it lasts."""

    session: int
    start_s: float
    ranks: list
    end_s: float | None = None

    def seconds(self, now_s):
        """Return its length, up to the present if it lasts."""
        return max((now_s if self.end_s is None else self.end_s) - self.start_s, 0.0)


@dataclass
class JobState:
    """The state of one job.

    Attributes
    ----------
    status : str
        waiting, running, finished, failed, interrupted (goes on with ``--resume``),
        cancelled or skipped (a job that it needs has failed).
    attempts : int
        How often it was started.
    ranks : list of int
        World ranks that it has; those of its end, if it has ended.
    stays : list of Stay
    training_s, startup_s : float
        Rank-seconds of all attempts.
    digest : str or None
        Of the configuration that it has.
    begun : str or None
        Of the configuration of the run in its directory.
    error : str or None
    result : dict or None
    """

    name: str
    directory: str = ""
    priority: int = 0
    min_ranks: int = 1
    max_ranks: int | None = None
    after: list = field(default_factory=list)
    status: str = WAITING
    attempts: int = 0
    ranks: list = field(default_factory=list)
    stays: list = field(default_factory=list)
    training_s: float = 0.0
    startup_s: float = 0.0
    error: str | None = None
    result: dict | None = None
    digest: str | None = None
    begun: str | None = None

    def seconds(self, now_s):
        """Return for how long it has had ranks."""
        return sum(stay.seconds(now_s) for stay in self.stays)

    def leave(self, time_s):
        """End the stay that lasts, if there is one."""
        if self.stays and self.stays[-1].end_s is None:
            self.stays[-1].end_s = max(time_s, self.stays[-1].start_s)


class History:
    """The sessions and jobs of a pool.

    Attributes
    ----------
    sessions : list of Session
    jobs : dict
        `JobState` by name, in the order of submission.
    last_s : float
        Time of the last event, in seconds since 1970.
    """

    def __init__(self):
        self.sessions, self.jobs, self.last_s = [], {}, 0.0

    def add(self, event):
        """Take one event into account; unknown kinds change nothing."""
        time_s = event["time_s"]
        take = getattr(self, f"_on_{event['event']}", None)
        if take is not None:
            take(event, time_s)
        self.last_s = max(self.last_s, time_s)

    def with_status(self, *statuses):
        """Return the jobs that are in one of these states."""
        return [job for job in self.jobs.values() if job.status in statuses]

    def abandon(self, time_s):
        """Note that the last session was killed at ``time_s``, if it has not ended."""
        self._end(KILLED, time_s)

    def _on_pool(self, event, time_s):
        self.abandon(self.last_s)
        nodes = list(event.get("nodes") or ())
        self.sessions.append(Session(time_s, int(event["ranks"]), nodes))

    def _on_submit(self, event, time_s):
        job = self._job(event)
        for key in ("directory", "priority", "min_ranks", "max_ranks", "digest"):
            setattr(job, key, event.get(key, getattr(job, key)))
        job.after = list(event.get("after") or ())
        job.leave(time_s)
        job.status, job.error, job.result = WAITING, None, None

    def _on_start(self, event, time_s):
        job = self._job(event)
        job.status, job.attempts, job.error = RUNNING, job.attempts + 1, None
        self._stay(job, event, time_s)

    def _on_begin(self, event, time_s):
        job = self._job(event)
        job.begun = job.digest

    def _on_resize(self, event, time_s):
        job = self._job(event)
        if job.status == RUNNING:
            self._stay(job, event, time_s)

    def _on_end(self, event, time_s):
        job = self._job(event)
        if event["status"] not in ENDINGS:
            raise ValueError(f"the unknown status {event['status']!r}")
        job.leave(time_s)
        job.status, job.error = event["status"], event.get("error")
        job.result = event.get("result")
        spent = event.get("rank_seconds") or {}
        job.training_s += float(spent.get("training") or 0.0)
        job.startup_s += float(spent.get("startup") or 0.0)

    def _on_close(self, event, time_s):
        self._end(event["status"], time_s)

    def _job(self, event):
        name = event["job"]
        if not isinstance(name, str):
            raise TypeError("a job without a name")
        return self.jobs.setdefault(name, JobState(name))

    def _stay(self, job, event, time_s):
        """Let a job have other ranks from now on."""
        if not self.sessions:
            raise ValueError("a job starts before the pool")
        job.leave(time_s)
        job.ranks = [int(rank) for rank in event["ranks"]]
        job.stays.append(Stay(len(self.sessions) - 1, time_s, job.ranks))

    def _end(self, status, time_s):
        """End the session that lasts, if there is one, and what runs in it."""
        session = self.sessions[-1] if self.sessions else None
        if session is None or session.end_s is not None:
            return
        session.status, session.end_s = status, max(time_s, session.start_s)
        for job in self.with_status(RUNNING):
            job.leave(time_s)
            job.status = INTERRUPTED


def replay(events, where="events"):
    """Return the `History` of events, in their order.

    Raises
    ------
    DataError
        If an event lacks a field, or one has another type.
    """
    history = History()
    for number, event in enumerate(events, 1):
        try:
            history.add(event)
        except MALFORMED as error:
            raise DataError(
                f"{where}: event {number} ({event['event']}) is damaged: "
                f"{type(error).__name__}: {error}"
            ) from error
    return history
