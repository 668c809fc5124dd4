"""What makes no sense is refused by all ranks, with one clear error."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from serial import make_data

import pympi_train as pt
from pympi_train.errors import (
    ConfigError,
    DataError,
    RankMismatchError,
    RemoteRankError,
)
from pympi_train.optim.schedule import Cosine


def make_trainer(comm, optimizer=None, **kwargs):
    optimizer = pt.SGD(0.1) if optimizer is None else optimizer
    model = pt.Softmax(5, 3, dtype="float64")
    return pt.Trainer(model, optimizer, batch_size=24, comm=comm, **kwargs)


def split(comm):
    return pt.Dataset.split(*make_data("classes"), comm=comm)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("where", ["on_step", "on_epoch"])
@pytest.mark.parametrize("call", ["fit", "load_state", "step", "prepare"])
def test_a_training_is_not_changed_from_within(comm, where, call):
    data = split(comm)
    with make_trainer(comm) as trainer:
        state = trainer.state()
        calls = {
            "fit": lambda: trainer.fit(data, epochs=1),
            "load_state": lambda: trainer.load_state(state),
            "step": lambda: trainer.step(pt.Batch(data.x, data.y)),
            "prepare": lambda: trainer.prepare(data),
        }
        with pytest.raises((RuntimeError, RemoteRankError), match="is in fit"):
            trainer.fit(data, epochs=2, **{where: lambda *args: calls[call]()})
        trainer.fit(data, epochs=1)


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize(
    "call", ["fit", "validation", "evaluator", "predict", "prepare"]
)
def test_rows_of_other_ranks_are_refused_on_all(comm, call):
    world = split(comm)
    part = comm.Split(comm.rank < 2, comm.rank)
    with make_trainer(part) as trainer:
        calls = {
            "fit": lambda: trainer.fit(world, epochs=1),
            "validation": lambda: trainer.fit(split(part), world, epochs=1),
            "evaluator": lambda: trainer.evaluator(world),
            "predict": lambda: trainer.predict(world),
            "prepare": lambda: trainer.prepare(world),
        }
        with pytest.raises(RankMismatchError, match=f"was made on {comm.size} ranks"):
            calls[call]()
    part.Free()


@pytest.mark.mpi(min_size=2)
def test_learning_rates_of_steps(comm):
    data = split(comm)
    batch = pt.Batch(data.x, data.y)
    with make_trainer(comm) as trainer:
        for rate in (float("nan"), float("inf"), -0.1, "0.1"):
            with pytest.raises(ConfigError, match="lr: expected a finite number >= 0"):
                trainer.step(batch, lr=rate)
        with pytest.raises(RankMismatchError, match="lr differs between ranks"):
            trainer.step(batch, lr=0.1 * (comm.rank + 1))
        assert trainer.steps == 0
        if comm.rank == 1:
            trainer.optimizer.lr = 0.5
        with pytest.raises(RankMismatchError, match="the optimizer's lr differs"):
            trainer.fit(data, epochs=1)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "spoil, error",
    [
        (lambda batch: None, TypeError),
        (lambda batch: (batch.x, batch.y), TypeError),
        (lambda batch: batch._replace(y=None), DataError),
        (lambda batch: batch._replace(weights=-np.ones(len(batch.x))), DataError),
        (lambda batch: batch._replace(weights=batch.weights * np.nan), DataError),
    ],
)
@pytest.mark.parametrize("n_before", [0, 1])
def test_what_is_no_batch(comm, spoil, error, n_before):
    data = split(comm)
    good = pt.Batch(data.x, data.y, np.ones(len(data)))
    with make_trainer(comm) as trainer:
        for _ in range(n_before):
            trainer.step(good)
        with pytest.raises((error, RemoteRankError)):
            trainer.step(spoil(good) if comm.rank == 1 else good)
        trainer.step(good)
        assert trainer.steps == n_before + 1


@pytest.mark.mpi(min_size=2)
def test_lbfgs_prepares_no_steps(comm):
    with make_trainer(comm, pt.LBFGS()) as trainer:
        with pytest.raises(ConfigError, match="LBFGS trains by fit alone"):
            trainer.prepare(split(comm))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kwargs", [{"epochs": 1.5}, {"epochs": 1, "patience": -1}])
def test_counts_are_counts(comm, kwargs):
    with make_trainer(comm) as trainer:
        with pytest.raises((ValueError, RemoteRankError), match="an integer >= 1"):
            trainer.fit(split(comm), **kwargs)


@pytest.mark.mpi(min_size=2)
def test_ranks_that_take_local_steps_by_hand_can_meet(comm):
    data = split(comm)
    parallel = pt.Parallel(strategy="local", local_steps=8)
    with make_trainer(comm, parallel=parallel) as trainer:
        for _ in range(3):
            trainer.step(pt.Batch(data.x, data.y))
        copies = comm.allgather(trainer.params.tobytes())
        assert len({*copies}) > 1
        trainer.settle()
        copies = comm.allgather(trainer.params.tobytes())
        assert len({*copies}) == 1
        trainer.state()


@pytest.mark.mpi(min_size=2)
def test_a_plan_that_ended_early_is_no_plan_any_more(comm):
    """Of 40 epochs few were trained; the schedule of the next 3 falls in these."""
    data = split(comm)
    with make_trainer(comm, schedule=Cosine()) as trainer:
        trainer.optimizer.lr = 1e-9  # hardly better, ever
        trainer.fit(data, data, epochs=40, patience=1, monitor="accuracy")
        assert trainer.ended == "patience"
        records = trainer.fit(data, epochs=3)
    assert records[-1]["learning_rate"] < 0.1 * records[0]["learning_rate"]


@pytest.mark.mpi(min_size=2)
def test_a_stop_asked_for_between_epochs_takes_no_further_step(comm):
    data = split(comm)
    with make_trainer(comm) as trainer:

        def on_epoch(record):
            if comm.rank == 1 and record["epoch"] == 2:
                trainer.request_stop()

        records = trainer.fit(data, epochs=9, on_epoch=on_epoch)
        assert (trainer.ended, len(records)) == ("stop", 2)
        assert trainer.steps == 10 and trainer.kept is records[-1]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "how, error, told",
    [
        ({"timeout_s": -1}, ConfigError, "at least 1, or 0 for never; got -1"),
        ({"timeout_s": 0.5}, ConfigError, "got 0.5"),
        ({"timeout_s": "3"}, ConfigError, "got '3'"),
        ({"timeout_s": float("nan")}, ConfigError, "got nan"),
        ({"debug": 1}, ConfigError, "debug: expected True or False"),
    ],
)
def test_arguments_of_ranks(comm, how, error, told):
    with pytest.raises(error, match=told):
        pt.Ranks(comm, **how)
    with pytest.raises(error, match=told):
        pt.Ranks(comm, **(how if comm.rank == 1 else {}))


@pytest.mark.mpi(min_size=2)
def test_ranks_are_made_alike(comm):
    with pytest.raises(RankMismatchError, match="debug differs between ranks"):
        pt.Ranks(comm, debug=comm.rank == 1)
    with pt.Ranks(comm) as outer, pt.Ranks(outer) as inner:
        assert inner.comm.allreduce(1) == comm.size


@pytest.mark.mpi(min_size=2)
def test_ranks_that_were_freed_say_so(comm):
    ranks = pt.Ranks(comm)
    data = split(ranks)
    trainer = make_trainer(ranks)
    measure = trainer.evaluator(data)
    trainer.free()
    with pytest.raises(RuntimeError, match="this Trainer was freed"):
        measure()
    ranks.free()
    for use in (
        lambda: split(ranks),
        lambda: make_trainer(ranks),
        lambda: pt.Exchange(ranks),
        lambda: pt.Ranks(ranks.comm),
    ):
        with pytest.raises(RuntimeError, match="were freed"):
            use()
    with pytest.raises(TypeError, match="expected Ranks or a communicator, got 'x'"):
        pt.Ranks("x")
    assert_array_equal(trainer.params, 0)
