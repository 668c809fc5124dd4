"""What the coordinator makes of jobs whose end it is told, on one rank."""

import pytest

from pympi_train.pool.coordinator import Coordinator
from pympi_train.pool.entry import STUCK, PoolJob
from pympi_train.pool.events import EventLog
from pympi_train.pool.history import (
    CANCELLED,
    FAILED,
    FINISHED,
    RUNNING,
    SKIPPED,
    WAITING,
)
from pympi_train.pool.room import Machine, Needs
from pympi_train.pool.schedule import Running


@pytest.fixture
def coordinator(tmp_path):
    from mpi4py import MPI

    log = EventLog(tmp_path / "pool")
    log.append("pool", ranks=1)
    yield Coordinator(MPI.COMM_SELF, Machine([0], [None], [1e9]), log)
    log.close()


def job(name, after=(), **more):
    return PoolJob(name, Needs(1, 1), "", name, after=after, **more)


def ended(coordinator, name, status):
    """Add a job that ends with a status."""
    coordinator.add(job(name))
    coordinator._close(coordinator.jobs[name], status)


@pytest.mark.parametrize("status", [FAILED, CANCELLED, SKIPPED])
def test_a_job_after_one_that_is_over_is_skipped(coordinator, status):
    ended(coordinator, "first", status)
    coordinator.add(job("second", after=("first",)))
    coordinator.add(job("third", after=("second",)))
    second, third = coordinator.jobs["second"], coordinator.jobs["third"]
    assert second.status == third.status == SKIPPED and coordinator.is_idle
    assert second.error.startswith("job first, which it needs, ")
    assert coordinator._log.history.jobs["third"].status == SKIPPED


def test_a_job_after_one_that_was_given_up_is_skipped(coordinator):
    ended(coordinator, "first", FAILED)
    coordinator.jobs["first"].status = STUCK
    coordinator.add(job("second", after=("first",)))
    assert coordinator.jobs["second"].error == "job first, which it needs, has failed"


def test_a_job_after_one_that_has_finished_may_start(coordinator):
    ended(coordinator, "first", FINISHED)
    coordinator.add(job("second", after=("first",)))
    assert coordinator.jobs["second"].status == WAITING


@pytest.mark.parametrize("is_cancelled, status", [(False, WAITING), (True, FAILED)])
def test_a_cancelled_job_is_not_tried_again(coordinator, is_cancelled, status):
    coordinator.add(job("first", retries=1))
    first = coordinator.jobs["first"]
    first.status, first.is_cancelled = RUNNING, is_cancelled
    coordinator._close(first, FAILED)
    assert first.status == status


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_job_that_has_not_begun_is_not_gone_on_from(coordinator, has_begun):
    """Its directory may have the checkpoints of another configuration."""
    coordinator.add(job("first", retries=1))
    first = coordinator.jobs["first"]
    first.status, first.running = RUNNING, Running(Needs(1, 1), [0])
    if has_begun:
        coordinator._hear({"kind": "running", "job": first.key, "n_ranks": 1})
    coordinator._close(first, FAILED)
    assert (first.status, first.resume) == (WAITING, has_begun)


def test_a_change_ordered_before_a_job_has_begun(coordinator):
    """Its first report is of its beginning, and frees no rank."""
    coordinator.add(job("first"))
    first = coordinator.jobs["first"]
    first.status, first.running = RUNNING, Running(Needs(1, 2), [0, 1])
    first.running.is_changing = True  # to one rank, for another job
    report = {"kind": "running", "job": first.key}
    coordinator._hear({**report, "n_ranks": 2})
    assert first.running.is_changing and not coordinator.free
    coordinator._hear({**report, "n_ranks": 1})
    assert not first.running.is_changing and coordinator.free == {1}
    assert first.running.ranks == [0]


def test_a_rank_whose_process_has_ended_gets_no_job(coordinator):
    coordinator.free = {0, 1}
    coordinator._hear({"kind": "ended", "rank": 1})
    assert coordinator.free == {0} and coordinator.lost == {1}


@pytest.mark.parametrize("ranks, status", [([1], STUCK), ([1, 2], RUNNING)])
def test_the_only_rank_of_a_job_has_ended(coordinator, ranks, status):
    """Of several ranks, the watchdog of another one reports it."""
    coordinator.add(job("first"))
    first = coordinator.jobs["first"]
    first.status, first.running = RUNNING, Running(Needs(1, 2), ranks)
    for _ in range(2):  # each rank of the node tells of it
        coordinator._hear({"kind": "ended", "rank": 1})
    assert first.status == status
    if status == STUCK:
        assert first.error == "the process of rank 1 of the pool has ended"
        assert coordinator.lost == {1} and coordinator.is_idle
