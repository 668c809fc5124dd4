"""Many trainings on shared ranks give what each gives alone."""

import contextlib
import errno
import functools
import os
import random

import pytest
from pool_jobs import alone, config_of, events, folder_with_rows

import pympi_train as pt
from pympi_train.checkpoint import store
from pympi_train.errors import ConfigError, DataError, JobError
from pympi_train.pool import coordinator
from pympi_train.pool.entry import PoolJob
from pympi_train.pool.events import EventLog
from pympi_train.pool.future import PoolFuture
from pympi_train.pool.room import Needs
from pympi_train.runs import job

OTHER = PoolJob("there", Needs(1, 1), "", "")  # of another pool


@pytest.fixture
def folder(mpi_tmp_path, comm):
    return folder_with_rows(mpi_tmp_path, comm)


def at_random(seed, plain):
    """Return a planner that moves the ranks of running jobs at random."""
    rng = random.Random(seed)

    def plan(machine, free, ready, running):
        starting, _ = plain(machine, free, ready, running)
        if running and rng.random() < 0.7:
            starting = {}  # so that ranks are free to join
        left = sorted(set(free) - {r for ranks in starting.values() for r in ranks})
        changing = {}
        for name, now in running.items():
            if now.is_changing or rng.random() < 0.9:
                continue
            n = rng.randint(1, min(len(now.ranks) + len(left), now.needs.most))
            if n != len(now.ranks):
                n_new = max(0, n - len(now.ranks))
                changing[name] = now.ranks[:n] + left[:n_new]
                left = left[n_new:]
        return starting, changing

    return plan


def in_turn(plain):
    """Return a planner that gives the only job one rank more or less, again and again.
    """

    def plan(machine, free, ready, running):
        starting, _ = plain(machine, free, ready, running)
        changing = {}
        for name, now in running.items():
            if not now.is_changing:
                n = len(now.ranks) % machine.n_ranks + 1
                changing[name] = (now.ranks + sorted(free))[:n]
        return starting, changing

    return plan


@pytest.fixture
def restless(monkeypatch):
    """Returns a function: from now on ranks move as a planner says, made of the own."""
    hear, plan = coordinator.Coordinator._hear, coordinator.plan

    def plan_again(self, *told):
        hear(self, *told)
        self._has_news = True

    monkeypatch.setattr(coordinator.Coordinator, "_hear", plan_again)
    monkeypatch.setattr("pympi_train.pool.meter.EVERY_S", 0.0)
    monkeypatch.setattr("pympi_train.pool.agent.BEHIND_S", 0.001)
    return lambda made: monkeypatch.setattr(coordinator, "plan", made(plan))


@pytest.mark.mpi
def test_random_schedules_change_no_bit(comm, folder, restless):
    """Ranks join and leave at random: the weights are those of each job alone."""
    ways = [
        [],
        ["train.epochs=120"],
        ["optimizer.learning_rate=0.3", "train.patience=3", "train.epochs=60"],
        ["model.kind=mlp", "model.hidden=[6]", "train.epochs=20"],
        ["optimizer.name=lbfgs", "model.l2=0.01", "train.epochs=15"],
    ]
    n_changes = 0
    for seed in range(3):
        restless(functools.partial(at_random, seed))
        where = folder / str(seed)
        with pt.Pool(comm, directory=where / "pool") as pool:
            if pool is not None:
                for i, way in enumerate(ways):
                    at = f"output.directory={where}/run{i}"
                    pool.submit(config_of(folder, "run", *way, at), name=str(i))
                done = {f.number: f.result() for f in pool.as_completed()}
        if comm.rank == 0:
            found = [done[i]["weights_sha256"] for i in range(len(ways))]
            assert found == [alone(folder, *way) for way in ways]
            n_changes += len(events(where, "resize"))
            ends = [event["status"] for event in events(where, "end")]
            assert ends == ["finished"] * len(ways)
    assert n_changes or comm.rank or comm.size == 1


def count_free_communicators():
    """Return how many communicators this rank can still be in: MPICH has some 2,000.
    """
    from mpi4py import MPI

    made = []
    with contextlib.suppress(MPI.Exception):
        while len(made) < 3000:  # Open MPI has more
            made.append(MPI.COMM_SELF.Dup())
    for copy in made:
        copy.Free()
    return len(made)


@pytest.mark.mpi(min_size=2)
def test_changes_of_ranks_leave_no_communicator(comm, folder, restless):
    restless(in_turn)
    left = []
    for n_epochs in (1, 16):  # what the first job makes may stay
        with pt.Pool(comm, directory=folder / str(n_epochs) / "pool") as pool:
            if pool is not None:
                config = config_of(folder, f"run{n_epochs}", f"train.epochs={n_epochs}")
                pool.submit(config).result()
        left.append(count_free_communicators())
    assert all(n_before == n > 100 for n_before, n in comm.allgather(left))
    assert comm.rank or len(events(folder / "16", "resize")) >= 10


FAST = "parallel.reduction=fast"
STRATEGIES = {  # and by how much the loss may differ from that of one rank
    "sharded": ([FAST, "parallel.strategy=sharded", "parallel.stage=3"], 1e-9),
    "hierarchical": ([FAST, "parallel.strategy=hierarchical"], 1e-9),
    "int8": ([FAST, "parallel.compression=int8"], 0.05),
    "local": ([FAST, "parallel.strategy=local", "parallel.local_steps=2"], 0.05),
}


@pytest.mark.mpi(min_size=2)
def test_ranks_of_each_strategy_change(comm, folder, restless):
    restless(in_turn)
    more = ["train.epochs=20", "optimizer.learning_rate=0.003"]
    found: dict = {}
    with pt.Pool(comm, directory=folder / "pool") as pool:
        if pool is None:
            return
        for name, (way, _) in STRATEGIES.items():
            config = config_of(folder, name, *way, *more)
            found[name] = pool.submit(config, name=name).result()
    changed = [event["job"] for event in events(folder, "resize")]
    assert all(changed.count(name) > 2 for name in STRATEGIES)
    for name, (way, tolerance) in STRATEGIES.items():
        from mpi4py import MPI

        config = config_of(folder, f"alone-{name}", *way, *more)
        want = job.train(config, MPI.COMM_SELF)
        for key in ("epochs", "steps", "samples_seen"):
            assert found[name][key] == want[key], name
        loss = want["validation"]["loss"]
        assert found[name]["validation"]["loss"] == pytest.approx(loss, rel=tolerance)


@pytest.mark.mpi(min_size=3)
def test_priority_and_cancelling(comm, folder):
    with pt.Pool(comm, directory=folder / "pool") as pool:
        if pool is None:
            return
        config = config_of(folder, "long", "train.epochs=100000")
        # Rank 0 has to be free: while it trains, this function waits.
        long = pool.submit(config, name="long", max_ranks=comm.size - 1)
        pool.wait(lambda: pool._coordinator.jobs["long"].progress)
        assert long.running() and not long.done()
        config = config_of(folder, "urgent")
        urgent = pool.submit(config, priority=1, min_ranks=2, name="urgent")
        assert urgent.result()["weights_sha256"] == alone(folder)
        assert long.cancel()
        assert isinstance(long.exception(), JobError) and long.cancelled()
        assert store.entries(folder / "long" / "checkpoints")
    changes = [event["job"] for event in events(folder, "resize")]
    assert "long" in changes


@pytest.mark.mpi
def test_a_disk_that_is_full_at_the_start(comm, folder, monkeypatch):
    """All ranks get the error, and the directory is free for another pool."""
    append = EventLog.append

    def full(self, event, **fields):
        raise DataError(f"{self.path}: {os.strerror(errno.ENOSPC)}")

    monkeypatch.setattr(EventLog, "append", full)
    with pytest.raises(DataError, match="No space left"):
        pt.Pool(comm, directory=folder / "pool").__enter__()
    monkeypatch.setattr(EventLog, "append", append)
    with pt.Pool(comm, directory=folder / "pool") as pool:
        assert (pool is None) is (comm.rank > 0)


@pytest.mark.mpi
@pytest.mark.parametrize(
    "how, what",
    [
        ({"min_ranks": 99}, "needs at least 99 ranks, but can use at most"),
        ({"min_ranks": 2, "max_ranks": 1}, "at least 2 ranks, but can use at most 1"),
        ({"gpus": 2}, "gpus must be one of 0, 1, got 2"),
        ({"min_ranks": 1.5}, "min_ranks must be an integer"),
        ({"max_ranks": 0}, "max_ranks must be at least 1, got 0"),
        ({"priority": "high"}, "'job-2' priority must be an integer, got 'high'"),
        ({"priority": None}, "priority must be an integer, got None"),
        ({"retries": -1}, "retries must be at least 0"),
        ({"memory_gb": float("nan")}, "memory_gb must be finite"),
        ({"name": 3}, "name must be a string"),
        ({"name": "a\n"}, "expected a name of printable characters"),
        ({"after": ["there"]}, "after must be a list of futures"),
        ({"after": "there"}, "after must be a list of futures"),
        ({"after": [PoolFuture(None, OTHER)]}, "futures of this pool"),
        ({"gpus": 1}, "needs a GPU, at least 1, but the ranks of this program have 0"),
        ({"memory_gb": 1e9}, "no room for 1 of its ranks"),
        ({"name": "there"}, "another one of this name"),
    ],
)
def test_what_cannot_run_is_refused(comm, folder, how, what):
    with pt.Pool(comm, directory=folder / "pool") as pool:
        if pool is None:
            return
        there = pool.submit(config_of(folder, "there"), name="there")
        with pytest.raises(ConfigError, match=what):
            pool.submit(config_of(folder, "new"), **how)
        with pytest.raises(ConfigError, match="is that of job there"):
            pool.submit(config_of(folder, "there"))
        elastic = config_of(folder, "new", "elastic.ranks=1")
        with pytest.raises(ConfigError, match="cannot be used in a pool"):
            pool.submit(elastic)
        with pytest.raises(ConfigError, match="must be a Config, got None"):
            pool.submit(None)
        there.cancel()
    assert there.done() and there.cancel() is there.cancelled()
    assert (there.exception() is None) is (there.status == "finished")
    with pytest.raises(ConfigError, match="the pool has ended"):
        pool.submit(config_of(folder, "new"))
