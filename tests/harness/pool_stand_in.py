"""A pool that trains one job after another on all ranks: the interface, and no more."""

import time

from pympi_train.errors import UserError
from pympi_train.pool.events import EventLog
from pympi_train.runs import job


class Future:
    """The result of a job that has been trained, or its error."""

    def __init__(self, name):
        self.name, self.error, self.outcome = name, None, None


class Pool:
    """As `pympi_train.pool.pool.Pool`, without a schedule."""

    def __init__(self, comm, directory, console=None, resume=False):
        self._comm, self._log = comm, None
        if comm.rank == 0:
            tell = console and console.tell
            self._log = EventLog(directory, resume, tell)
            attempt = len(self._log.history.sessions) + 1
            self._log.append("pool", ranks=comm.size, nodes=[], attempt=attempt)
        self._jobs = {}

    def __enter__(self):
        if self._comm.rank == 0:
            return self
        while (config := self._comm.bcast(None, root=0)) is not None:
            self._train(config)
        return None

    def __exit__(self, *about):
        if self._comm.rank == 0:
            self._comm.bcast(None, root=0)
            self._log.append("close", status="finished")
            self._log.close()

    def submit(self, config, *, name, after=(), **how):
        needed = [future.name for future in after]
        kept = {key: how[key] for key in ("priority", "min_ranks", "max_ranks")}
        about = {"after": needed, "directory": config.output.directory, **kept}
        self._log.append("submit", job=name, **about)
        future = Future(name)
        self._jobs[future] = config, after
        return future

    def as_completed(self, futures):
        for future in futures:
            config, after = self._jobs[future]
            told = {"job": future.name, "error": None, "result": None}
            if any(other.error is not None for other in after):
                future.error = UserError("a job that it needs has failed")
                self._log.append("end", **told, status="skipped")
                continue
            self._log.append("start", **told, ranks=list(range(self._comm.size)))
            self._comm.bcast(config, root=0)
            began_s = time.time()
            future.outcome, future.error = self._train(config)
            told["result"] = future.outcome
            if future.error is not None:
                error = future.error
                told["error"] = f"{type(error).__name__}: {error}"
            status = "finished" if future.error is None else "failed"
            spent = {"training": time.time() - began_s, "startup": 0.0}
            self._log.append("end", **told, status=status, rank_seconds=spent)
            yield future

    def _train(self, config):
        try:
            return job.train(config, self._comm, resume="newest"), None
        except UserError as error:
            return None, error
