"""Jobs that begin again: after a failure, a signal, or a change of their settings."""

import signal
from pathlib import Path

import pytest
from pool_jobs import alone, config_of, events, folder_with_rows

import pympi_train as pt
from pympi_train.checkpoint import store
from pympi_train.runs import job, output


@pytest.fixture
def folder(mpi_tmp_path, comm):
    return folder_with_rows(mpi_tmp_path, comm)


@pytest.fixture
def begun(monkeypatch):
    """Name of the job and steps done, each time that this rank begins to train one."""
    found, fit = [], job._fit

    def noted(course, trainer, *rest):
        found.append((Path(course.config.output.directory).name, trainer.steps))
        return fit(course, trainer, *rest)

    monkeypatch.setattr(job, "_fit", noted)
    return found


def first_steps(comm, begun, name):
    """Steps that a job had done when its ranks began, ascending. Collective."""
    return sorted({n for of in comm.allgather(begun) for job, n in of if job == name})


@pytest.mark.mpi
def test_a_job_may_be_tried_again(comm, folder, monkeypatch):
    fit, n_left = job._fit, [2]

    def failing(course, trainer, *rest):
        if n_left[0] and trainer.batch_size == 20:
            n_left[0] -= 1
            raise output.DataError("planted") if comm.size == 1 else MemoryError()
        return fit(course, trainer, *rest)

    monkeypatch.setattr(job, "_fit", failing)
    with pt.Pool(comm, directory=folder / "pool") as pool:
        if pool is None:
            return
        config = config_of(folder, "again", "train.batch_size=20")
        how = {"min_ranks": 1, "max_ranks": 1, "retries": 1}
        futures = [pool.submit(config, **how)]
        error = futures[0].exception()
    assert error is not None or comm.size > 1
    assert len(events(folder, "start")) == 2


@pytest.mark.mpi
def test_a_retry_goes_on_from_the_newest_checkpoint(comm, folder, begun, monkeypatch):
    """It fails once, in the step that ends the third epoch, on all its ranks."""
    add, mark = output.RunDirectory.add_record, folder / "has-failed"

    def failing(self, record):
        if record["epoch"] == 3 and not mark.exists():
            mark.touch()
            raise RuntimeError("planted")
        add(self, record)

    monkeypatch.setattr(output.RunDirectory, "add_record", failing)
    way = ["train.epochs=6"]
    with pt.Pool(comm, directory=folder / "pool") as pool:
        if pool is not None:
            config = config_of(folder, "again", *way, "checkpoint.every_steps=8")
            how = {"min_ranks": min(2, comm.size), "max_ranks": 2, "retries": 1}
            found = pool.submit(config, **how).result()
    assert first_steps(comm, begun, "again") == [0, 8]
    if comm.rank == 0:
        ends = [event["status"] for event in events(folder, "end")]
        assert ends == ["failed", "finished"]
        assert found["weights_sha256"] == alone(folder, *way)


@pytest.mark.mpi(min_size=2)
def test_a_pool_goes_on_where_it_was(comm, folder, begun):
    """Finished jobs keep their results; others go on from their checkpoints."""
    ways = {"b": ["train.epochs=200"], "a": []}  # b not on rank 0, which waits for a
    with pt.Pool(comm, directory=folder / "pool") as pool:
        if pool is not None:
            second, first = [
                pool.submit(config_of(folder, name, *way), name=name, max_ranks=1)
                for name, way in ways.items()
            ]
            first.result()
            assert not second.done()
            pool._coordinator.stop(signal.SIGTERM)
    before = comm.bcast(None if comm.rank else events(folder, "end"))
    assert {e["job"]: e["status"] for e in before}["b"] == "interrupted"
    del begun[:]
    newest = store.entries(folder / "b" / "checkpoints")[-1]
    with pt.Pool(comm, directory=folder / "pool", resume=True) as pool:
        if pool is not None:
            futures = [
                pool.submit(config_of(folder, name, *way), name=name)
                for name, way in ways.items()
            ]
            found = [future.result()["weights_sha256"] for future in futures]
    assert first_steps(comm, begun, "b")[0] == newest.step > 0
    if comm.rank == 0:
        assert found == [alone(folder, *way) for way in ways.values()]
        starts = [event["job"] for event in events(folder, "start")]
        assert starts.count("a") == 1 and starts.count("b") == 2


@pytest.mark.mpi(min_size=2)
def test_a_job_that_has_changed_begins_again(comm, folder):
    """With a rate that was edited; settings that change no result do not count."""
    old = ["train.epochs=100"]
    new = [*old, "optimizer.learning_rate=0.1"]
    going_on = []
    for way in (old, new, [*new, "checkpoint.every_s=99"], new):
        is_last = len(going_on) == 3
        with pt.Pool(comm, directory=folder / "pool", resume=way is not old) as pool:
            if pool is not None:
                config = config_of(folder, "run", *way)
                future = pool.submit(config, name="run", max_ranks=1)
                entry = pool._coordinator.jobs["run"]
                going_on.append(entry.resume)
                if is_last:
                    found = future.result()["weights_sha256"]
                else:
                    pool.wait(lambda: entry.running and entry.running.has_begun)
                    pool._coordinator.stop(signal.SIGTERM)
        going_on = comm.bcast(going_on)
    if comm.rank == 0:
        assert going_on == [False, False, True, True]
        assert found == alone(folder, *new)
