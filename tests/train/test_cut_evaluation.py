"""A rank that must end in the middle of an evaluation; the training goes on later."""

import numpy as np
import pytest
import strategies
from numpy.testing import assert_array_equal
from serial import make_data
from spread import dataset

import pympi_train as pt
from pympi_train.flat.state import State

KINDS = ("allreduce", "sharded-3", "server", "exact", "local", "allreduce-int8")


class Alarm(pt.MLP):
    """Calls ``ring`` before the second micro-batch of an evaluation."""

    ring = None

    def predict(self, params, x):
        self.n_calls += 1
        if self.n_calls == 2 and self.ring is not None:
            self.ring()
        return super().predict(params, x)


def make_trainer(comm, how, optimizer):
    model = Alarm(5, [24, 24], 3, dtype="float64")
    model.n_calls = 0
    return pt.Trainer(
        model,
        optimizer,
        batch_size=24,
        micro_batch_size=8,
        parallel=pt.Parallel(**strategies.STRATEGIES[how]),
        backend="numpy",
        comm=comm,
    )


def fit(trainer, epochs):
    if trainer.serves:
        return trainer.fit(None, epochs=epochs)
    parts = make_data("classes")
    rows = dataset(trainer.comm, "even", *parts), dataset(trainer.comm, "even", *parts)
    return trainer.fit(*rows, epochs=epochs)


def without_times(record):
    names = ("_s", "_bytes")
    return {k: v for k, v in record.items() if not k.endswith(names)}


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", KINDS)
def test_epoch_is_as_if_its_evaluation_had_not_been_cut(comm, how):
    with make_trainer(comm, how, pt.Adam(0.02)) as trainer:
        want = fit(trainer, 2)
        weights = [view.copy() for view in trainer.weights().values()]
    with make_trainer(comm, how, pt.Adam(0.02)) as trainer:
        if not trainer.serves and trainer.comm.rank == trainer.comm.size - 1:
            trainer.model.ring = lambda: trainer.request_stop(at_once=True)
        cut = fit(trainer, 2)
        if not trainer.serves:
            assert (cut, trainer.ended, trainer.epoch) == ([], "stop", 0)
            assert trainer.model.n_calls <= 2 or trainer.comm.rank < comm.size - 1
            assert trainer.progress.batch == 5
        state = State.merged(comm.allgather(trainer.state()))
    with make_trainer(comm, how, pt.Adam(0.02)) as trainer:
        trainer.load_state(state)
        found = fit(trainer, 2)
        for view, array in zip(trainer.weights().values(), weights):
            assert_array_equal(view, array)
    assert len(found) == len(want)
    for a, b in zip(found, want):
        a, b = without_times(a), without_times(b)
        losses = a.pop("train_loss"), b.pop("train_loss")
        assert losses[0] == pytest.approx(losses[1], rel=1e-12)
        assert a == b


@pytest.mark.mpi(min_size=2)
def test_other_stops_and_lbfgs_wait_for_the_evaluation(comm):
    for optimizer, at_once in ((pt.Adam(0.02), False), (pt.LBFGS(), True)):
        with make_trainer(comm, "allreduce", optimizer) as trainer:
            trainer.model.ring = lambda: trainer.request_stop(at_once=at_once)
            (record,) = fit(trainer, 3)
            assert (trainer.ended, trainer.epoch) == ("stop", 1)
            assert np.isfinite(record["validation_loss"])
