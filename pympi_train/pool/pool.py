"""A pool: one program's ranks, shared by many trainings."""

import atexit
from contextlib import ExitStack

from pympi_train.comm import mesh
from pympi_train.comm.checks import together
from pympi_train.comm.ranks import require_reachable, served_by
from pympi_train.comm.watch.abort import end_with_output
from pympi_train.config.config import Config
from pympi_train.errors import ConfigError
from pympi_train.keys import section
from pympi_train.pool.agent import Agent, coordinating
from pympi_train.pool.coordinator import Coordinator
from pympi_train.pool.entry import PoolJob, config_digest
from pympi_train.pool.events import EventLog
from pympi_train.pool.future import PoolFuture
from pympi_train.pool.history import FINISHED, INTERRUPTED, RUNNING, WAITING
from pympi_train.pool.jobfile.tables import JobTable
from pympi_train.pool.machine import machine_of
from pympi_train.pool.report.speaker import Speaker
from pympi_train.pool.room import GB, Needs
from pympi_train.runs.elastic.requests import Bounds
from pympi_train.runs.output import toml
from pympi_train.runs.recovery.signals import orderly


class Pool:
    """Ranks that many trainings share: a context manager, as mpi4py's executors are.

    All ranks enter it together. Rank 0 gets the pool, submits trainings and waits for
    them; the other ranks work until it is closed, and then get None::

        with pt.Pool(directory="runs/pool") as pool:
            if pool is not None:
                futures = [pool.submit(config) for config in configs]
                for future in pool.as_completed(futures):
                    print(future.name, future.result()["validation"])

    Rank 0 trains too, within ``result``, ``as_completed`` and the end of the body.

    Parameters
    ----------
    comm : MPI.Comm, optional
        COMM_WORLD by default. Its ranks are the pool's.
    directory : path
        Of the log, ``events.jsonl``; rank 0's counts.
    console : Console, optional
        Prints a line for each start, change of ranks and end of a job; on rank 0.
    resume : bool
        Go on from the log of an earlier pool: jobs that were finished have their
        result at once, others go on from their newest checkpoint.
    stop : Stop, optional
        Of `signals.orderly`, if signals were handled before.

    Attributes
    ----------
    n_ranks : int
    spent_s : float
        Seconds of CPU that rank 0 has spent with scheduling.
    interrupted : int
        Number of the signal that has ended the pool early, or 0.
    has_lost : bool
        Whether ranks hang in a job that was given up. After the pool, collectives of
        its communicator would then wait for them for ever.

    Raises
    ------
    ConfigError
        On every rank, if the directory cannot be used.

    Notes
    -----
    Collective.

    A training that fails, diverges or waits does not disturb the others. If a rank
    raises alone, where the others cannot be told (inside MPI), its job is given up, and
    the ranks that wait in it are lost to the pool; when rank 0 ends, it ends these.
    """

    def __init__(self, comm=None, *, directory, console=None, resume=False, stop=None):
        self._base, self._directory = comm, directory
        self._console, self._resume, self._given_stop = console, resume, stop
        self._stack, self._futures, self._by_directory = ExitStack(), {}, {}
        self._agent = self._coordinator = None
        self._has_ended = False

    def __enter__(self):
        from mpi4py import MPI

        base = mesh.world() if self._base is None else self._base
        require_reachable(base)
        mesh.share_of_node(base)  # so that jobs know how many processes share a node
        self._comm = comm = MPI.Intracomm.Dup(base)
        try:
            machine = machine_of(comm)
            log = None
            with together(comm):
                if comm.rank == 0:
                    tell = None
                    if self._console is not None:
                        tell = Speaker(self._console, self._directory).tell
                    log = EventLog(self._directory, self._resume, tell)
                    self._before = dict(log.history.jobs)
                    log.begin(machine.nodes)
        except BaseException:
            comm.Free()
            raise
        stop = self._given_stop or self._stack.enter_context(orderly())
        self.n_ranks, self._log = comm.size, log
        if comm.rank == 0:
            self._coordinator = Coordinator(comm, machine, log)
            self._stack.enter_context(coordinating(self._coordinator))
            self._stack.enter_context(served_by(comm))
        self._agent = Agent(comm, stop, self._coordinator)
        if comm.rank == 0:
            return self
        self._agent.serve()
        self._leave(self._agent.has_lost)
        return None

    def __exit__(self, kind, error, trace):
        if self._coordinator is None:
            return
        coordinator = self._coordinator
        if kind is not None:
            self._cancel_all()
        self._agent.serve(lambda: coordinator.is_idle)
        self._stack.close()
        coordinator.end()
        self._has_ended = True
        status = INTERRUPTED if self.interrupted else FINISHED
        try:
            self._log.append("close", status=status, spent_s=coordinator.spent_s)
        finally:
            self._log.close()
            self._leave(bool(coordinator.lost))
        if coordinator.failure is not None and kind is None:
            raise coordinator.failure

    def _leave(self, has_lost):
        """Leave the pool. Collective, unless ranks are lost."""
        self._stack.close()
        if not has_lost:
            self._comm.Free()
        elif self._coordinator is not None:
            # The lost ranks never call MPI_Finalize, so it would not return.
            atexit.register(end_with_output, 1)

    def submit(
        self,
        config,
        *,
        name=None,
        priority=0,
        min_ranks=1,
        max_ranks=None,
        gpus=0,
        memory_gb=None,
        after=(),
        retries=0,
        resume=None,
    ):
        """Add a training; return its `PoolFuture`. On rank 0 only.

        Parameters
        ----------
        config : Config
            Its ``[output] directory`` must be that of no other job that is not over.
        name : str, optional
            "job-1", "job-2", ... by default.
        priority : int
            Jobs of a higher one go first, and take ranks from those of a lower one.
        min_ranks, max_ranks : int
            It starts on the first number or more, and gets up to the second one (None:
            all) while ranks are free.
        gpus : {0, 1}
            1: each of its ranks needs a GPU that no other job uses.
        memory_gb : float, optional
            Memory that a rank needs, in units of 10^9 bytes. The jobs of a node do not
            need more than it had available at the start of the pool.
        after : sequence of PoolFuture
            Jobs that have to be finished before.
        retries : int
            How often it is begun again, from its newest checkpoint, after a failure.
        resume : bool, optional
            True: go on from the newest checkpoint in its directory, if there is one;
            if an earlier start of this pool has finished it, keep its result.
            False: begin afresh, also if an earlier start of this pool has finished it.
            None: as an earlier start of this pool has left it, if there was one; but
            afresh if it is not finished and its configuration has changed.

        Raises
        ------
        ConfigError
            If it cannot run here, a number makes no sense, or it has finished before
            with another configuration.
        """
        coordinator, number = self._coordinator, len(self._futures)
        name = f"job-{number + 1}" if name is None else name
        given = {"name": name, "priority": priority, "gpus": gpus, "retries": retries}
        given |= {"min_ranks": min_ranks, "max_ranks": max_ranks}
        _check(given | {"memory_gb": memory_gb}, config)
        self._require_own_futures(name, after)
        if self._has_ended:
            raise ConfigError(f"job {name}: the pool has ended; submit within its body")
        if config.elastic.survive or config.elastic.ranks is not None:
            raise ConfigError(
                f"job {name}: [elastic] ranks and survive cannot be used in a pool, "
                "which moves the ranks itself: remove them"
            )
        self._require_own(name, config.output.directory)
        bounds = Bounds.of(config, self.n_ranks)
        most = min(bounds.most, self.n_ranks if max_ranks is None else max_ranks)
        least = max(bounds.least, min_ranks or 1)
        if least > most:
            why = f" ({bounds.why})" if bounds.why else ""
            raise ConfigError(
                f"job {name} needs at least {least} ranks, but can use at most "
                f"{most}{why}"
            )
        bytes_a_rank = (memory_gb or 0.0) * GB
        needs = Needs(least, most, priority, number, gpus, bytes_a_rank)
        entry = PoolJob(
            name,
            needs,
            toml(config),
            config.output.directory,
            after=tuple(future.name for future in after),
            retries=retries,
            digest=config_digest(config),
        )
        entry.follow(self._before.get(name), resume)
        coordinator.add(entry)
        future = PoolFuture(self, entry)
        self._futures[name] = self._by_directory[entry.directory] = future
        return future

    def _require_own_futures(self, name, after):
        """Raise ConfigError unless ``after`` is a list of futures of this pool."""
        is_list = isinstance(after, (list, tuple))
        if not is_list or not all(
            isinstance(future, PoolFuture) and self._futures.get(future.name) is future
            for future in after
        ):
            raise ConfigError(
                f"job {name}: after must be a list of futures of this pool, got "
                f"{after!r}"
            )

    def _require_own(self, name, directory):
        other = self._by_directory.get(directory)  # the last one; others are over
        if other is not None and not other.done():
            raise ConfigError(
                f"job {name}: its [output] directory {directory} is that of job "
                f"{other.name}; choose another"
            )

    def as_completed(self, futures=None):
        """Yield futures when they are done, in that order; on rank 0 only.

        Those that cannot be done any more, since the pool was interrupted, are yielded
        last. ``futures``: all that were submitted by default.
        """
        left = list(self._futures.values() if futures is None else futures)
        while left:
            self.wait(lambda: any(future.done() for future in left))
            done = [future for future in left if future.done()]
            for future in sorted(done or left, key=lambda f: f.number):
                left.remove(future)
                yield future

    def wait(self, until):
        """Work until ``until()`` is true, or nothing runs and nothing can start."""
        coordinator = self._coordinator
        if not self._has_ended:
            self._agent.serve(lambda: until() or coordinator.is_idle)

    def _cancel_all(self):
        for name, entry in self._coordinator.jobs.items():
            if entry.status in (WAITING, RUNNING):
                self._coordinator.cancel(name)

    @property
    def spent_s(self):
        return self._coordinator.spent_s

    @property
    def has_lost(self):
        if self._coordinator is not None:
            return bool(self._coordinator.lost)
        return self._agent is not None and self._agent.has_lost

    @property
    def interrupted(self):
        return self._coordinator.signal


def _check(given, config):
    """Raise ConfigError unless the arguments of `Pool.submit` are valid."""
    for key in ("max_ranks", "memory_gb"):
        if given[key] is None:
            del given[key]
    name = given["name"]
    section(JobTable, {**given, "config": ""}, f"job {name!r}")
    if not name or not name.isprintable():
        raise ConfigError(f"job {name!r}: expected a name of printable characters")
    if not isinstance(config, Config):
        raise ConfigError(f"job {name}: config must be a Config, got {config!r}")
