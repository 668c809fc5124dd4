"""Jobs beside each other: failures, and a rank 0 that is busy, disturb none."""

import errno
import os
import time

import pytest
from pool_jobs import alone, config_of, events, folder_with_rows

import pympi_train as pt
from pympi_train.errors import JobError
from pympi_train.models.softmax import Softmax
from pympi_train.pool import agent
from pympi_train.runs import output, prepare


@pytest.fixture
def folder(mpi_tmp_path, comm):
    return folder_with_rows(mpi_tmp_path, comm)


def wait_until(is_true):
    deadline_s = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline_s, "waited in vain for other jobs"
        time.sleep(0.002)


@pytest.fixture
def planted(monkeypatch):
    """Returns a function that lets ``before()`` come before each gradient of a job.

    The job has ``model.l2`` as told; ``before`` runs on the ranks of the process.
    """
    build, planted = prepare.build_model, {}

    class Planted(Softmax):
        def gradient(self, params, grads):
            self.before()
            super().gradient(params, grads)

    def model(section, schema):
        made = build(section, schema)
        if section.l2 in planted:
            made.__class__, made.before = Planted, planted[section.l2]
        return made

    monkeypatch.setattr(prepare, "build_model", model)
    return planted.__setitem__


BAD = ["missing", "diverges", "raises", "full"]


@pytest.fixture
def bad(comm, folder, planted, monkeypatch):
    """Missing data, divergence, an error in backward on one rank, a full disk.

    Returns the part of the error and the overrides of each job of BAD.
    """
    group_of, last, n_calls = agent.group_of, [], [0]

    def noted(of, ranks, *rest):
        last.append(ranks[-1])
        return group_of(of, ranks, *rest)

    def raise_on_last_rank():
        n_calls[0] += comm.rank == last[-1]
        if n_calls[0] > 5:
            raise ValueError("planted")

    def full(path, mode="r", **how):
        if path.parent.name == "full" and mode == "a":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return open(path, mode, **how)

    monkeypatch.setattr(agent, "group_of", noted)
    planted(0.125, raise_on_last_rank)
    monkeypatch.setattr(output, "open", full, raising=False)
    why = f"metrics.jsonl: cannot be written: {os.strerror(errno.ENOSPC)}"
    ways = [
        ("no such file", "data.train=no.npz"),
        ("became", "optimizer.learning_rate=1e300"),
        ("planted", "model.l2=0.125"),
        (why, "train.epochs=2"),
    ]
    return dict(zip(BAD, ways))


@pytest.mark.mpi(min_size=2)
def test_failures_disturb_no_other_job(comm, folder, bad, planted, capfd):
    """A job on one rank trains while jobs on all the others fail, one by one."""
    n_calls = [0]

    def wait_for_failures():
        n_calls[0] += 1
        n, log = min(n_calls[0] // 20, len(BAD)), folder / "pool" / "events.jsonl"
        wait_until(lambda: log.read_text().count('"status": "failed"') >= n)

    planted(0.25, wait_for_failures)
    way = ["train.epochs=20", "model.l2=0.25"]
    with pt.Pool(comm, directory=folder / "pool") as pool:
        if pool is None:
            return
        config = config_of(folder, "good", *way)
        good = pool.submit(config, name="good", max_ranks=1)
        n = {"min_ranks": comm.size - 1, "max_ranks": comm.size - 1}
        failing = {
            name: pool.submit(config_of(folder, name, override), name=name, **n)
            for name, (_, override) in bad.items()
        }
        last = pool.submit(config_of(folder, "last"), after=[good])
        skipped = pool.submit(config_of(folder, "skipped"), after=[*failing.values()])
        for name, future in failing.items():
            assert bad[name][0].lower() in str(future.exception()).lower()
            assert future.status == "failed"
        assert good.result()["weights_sha256"] == alone(folder, *way)
        assert last.result()["weights_sha256"] == alone(folder)
        with pytest.raises(JobError, match="skipped"):
            skipped.result()
        assert not pool._coordinator.lost
    began_s, ended_s = times_of(folder, "start"), times_of(folder, "end")
    for name in BAD:
        assert began_s["good"] < began_s[name] < ended_s[name] < ended_s["good"]
    capfd.readouterr()  # the traceback of the planted error


def times_of(folder, kind):
    return {event["job"]: event["time_s"] for event in events(folder, kind)}


@pytest.mark.mpi(min_size=2)
def test_rank_0_answers_while_it_is_in_a_step(comm, folder, planted):
    """By a thread. Its step ends when it has taken note of the end of another job."""
    from mpi4py import MPI

    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        pytest.skip("this MPI has no threads that communicate at the same time")
    mark, log = folder / "in-a-step", folder / "pool" / "events.jsonl"

    def wait_for_the_other():
        if comm.rank > 0:
            wait_until(mark.exists)
            return
        mark.touch()
        wait_until(lambda: '"event": "end"' in log.read_text())

    planted(0.25, wait_for_the_other)
    with pt.Pool(comm, directory=folder / "pool") as pool:
        if pool is None:
            return
        for name in range(comm.size):
            config = config_of(folder, str(name), "model.l2=0.25")
            pool.submit(config, name=str(name), max_ranks=1)
        assert all(future.exception() is None for future in pool.as_completed())
    ranks = [event["ranks"] for event in events(folder, "start")]
    assert sorted(ranks) == [[rank] for rank in range(comm.size)]
