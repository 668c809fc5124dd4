"""The ranks of a job: made for any communicator, and gone without a trace."""

import threading

import numpy as np
import pytest

import pympi_train as pt
from pympi_train.comm import mesh, ranks
from pympi_train.comm.checks import agreed_within, members, together
from pympi_train.comm.ranks import Ranks, key_of, ranks_of, resolve


@pytest.fixture
def half(comm):
    """Rank 0 alone, and the others together."""
    part = comm.Split(int(comm.rank > 0), key=comm.rank)
    yield part
    part.Free()


def watchdogs():
    return sum(t.name == "pympi_train watchdog" for t in threading.enumerate())


@pytest.mark.mpi(min_size=2)
def test_a_job_on_a_part_of_the_ranks(comm, half):
    before = watchdogs()
    with Ranks(half, timeout_s=50.0) as job:
        assert (job.rank, job.size) == (half.rank, half.size)
        assert (job.timeout_s, job.debug) == (50.0, False)
        assert job.comm.allreduce(1) == half.size
        assert watchdogs() == before + (half.size > 1)
    assert not job and not job.comm
    assert watchdogs() == before
    job.free()  # once is enough


@pytest.mark.mpi(min_size=2)
def test_what_stands_for_ranks(comm):
    world = resolve(None)
    assert world.size == mesh.world().size
    assert resolve(None) is world  # made once
    assert resolve(comm) is comm
    with Ranks(comm) as job:
        assert resolve(job) is job.comm
        assert ranks_of(job) == (job, False)
    assert ranks_of(None) == (ranks.default(), False)
    own, has_to_be_freed = ranks_of(None, timeout_s=7.0)
    assert has_to_be_freed and own.timeout_s == 7.0
    own.free()


@pytest.mark.mpi(min_size=3)
def test_key_tells_ranks_and_their_order_apart(comm, half):
    turned = comm.Split(0, key=-comm.rank)
    keys = [key_of(one) for one in (comm, half, turned)]
    turned.Free()
    assert len(set(keys)) == 3
    assert comm.allgather(keys[0]) == [keys[0]] * comm.size
    with Ranks(comm) as job:
        assert job.key == key_of(job.comm) == keys[0]


@pytest.mark.mpi(min_size=2)
def test_an_error_of_the_job_frees_it_and_one_of_a_rank_does_not(comm):
    job = Ranks(comm)
    with pytest.raises(ValueError):
        with job:
            raise agreed_within(job.comm, ValueError())
    assert not job
    job = Ranks(comm)
    with pytest.raises(ValueError):
        with job:
            raise ValueError  # as far as it knows, on this rank alone
    assert job
    job.free()


@pytest.mark.mpi(min_size=3)
def test_an_error_is_agreed_within_its_job(comm, half):
    """The other job goes on, and so does whoever has ranks of both."""
    with Ranks(comm) as everyone:
        with Ranks(half) as job:
            if comm.rank:
                with pytest.raises((KeyError, pt.errors.RemoteRankError)) as info:
                    with together(job.comm):
                        if comm.rank == 1:
                            raise KeyError("lost")
                assert info.value.raised_by == set(members(half))
        assert everyone.comm.allreduce(1) == comm.size


@pytest.mark.mpi(min_size=2)
def test_threads_are_shared_with_ranks_of_other_jobs(comm, half, monkeypatch):
    from pympi_train.backends import threads

    cpus = set(range(8 * comm.size))
    monkeypatch.setattr(threads, "affinity", lambda: cpus)
    monkeypatch.setattr(mesh, "_world_masks", {})
    monkeypatch.setattr(mesh.launcher, "local_size", lambda environ: comm.size)
    with Ranks(half) as job:  # the world has not met: by the launcher's word
        assert job.n_threads == 8
    with Ranks(comm) as everyone:
        assert everyone.n_threads == 8
    monkeypatch.setattr(mesh.launcher, "local_size", lambda environ: 1)
    with Ranks(half) as job:  # it has
        assert job.n_threads == 8


@pytest.mark.mpi(min_size=3)
def test_ranks_that_are_bound_have_their_cpus(comm, half, monkeypatch):
    from pympi_train.backends import threads

    monkeypatch.setattr(threads, "affinity", lambda: {2 * comm.rank, 2 * comm.rank + 1})
    monkeypatch.setattr(mesh, "_world_masks", {})
    monkeypatch.setattr(mesh.launcher, "local_size", lambda environ: comm.size)
    with Ranks(half) as job:
        # A rank alone cannot know whether the others have CPUs of their own.
        assert job.n_threads == (1 if half.size == 1 else 2)


@pytest.mark.mpi(min_size=3)
def test_jobs_train_side_by_side(comm, half):
    x = np.random.default_rng(0).standard_normal((20, 3))
    y = x @ np.array([[1.0], [2.0], [3.0]])
    with Ranks(half) as job:
        data = pt.Dataset.split(x, y, comm=job)
        model = pt.Linear(3, dtype="float64")
        with pt.Trainer(model, pt.SGD(0.1), batch_size=5, comm=job) as trainer:
            assert trainer.ranks is job
            trainer.fit(data, epochs=1 + (comm.rank > 0))
        assert job  # the Trainer did not make it
