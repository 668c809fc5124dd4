"""Steps that a caller steers are those of fit, on whatever batches are handed in."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from serial import make_data
from spread import dataset

import pympi_train as pt
from pympi_train.data.epoch import EpochPlan
from pympi_train.errors import ConfigError, DivergenceError, RemoteRankError

N, BATCH = 103, 24
STRATEGIES = {
    "allreduce": {"strategy": "allreduce", "overlap": "on", "bucket_bytes": 1024},
    "hierarchical": {"strategy": "hierarchical"},
    "sharded": {"strategy": "sharded", "stage": 3},
    "local": {"strategy": "local", "local_steps": 1},
    "int8": {"compression": "int8"},
}


def make_trainer(comm, optimizer=None, *, model=None, **parallel):
    return pt.Trainer(
        pt.MLP(5, [8], 3, dtype="float64") if model is None else model,
        pt.Adam(0.02) if optimizer is None else optimizer,
        batch_size=BATCH,
        micro_batch_size=3,
        l2=0.01,
        clip_norm=0.5,
        parallel=pt.Parallel(**parallel),
        backend="numpy",
        comm=comm,
    )


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", STRATEGIES)
def test_takes_the_steps_of_fit(comm, how):
    x, y = make_data("classes")
    weights = np.linspace(0.5, 2, N)
    data = dataset(comm, "hole", x, y, weights)
    with make_trainer(comm, **STRATEGIES[how]) as fitted:
        fitted.fit(data, epochs=1)
        want = [view.copy() for view in fitted.weights().values()]
    with make_trainer(comm, **STRATEGIES[how]) as steered:
        plan = EpochPlan(N, 0, 0, data.start, data.stop, BATCH)
        for index in range(plan.n_batches):
            rows = plan.batch(index)
            batch = pt.Batch(data.x[rows], data.y[rows], data.weights[rows])
            steered.step(batch)
        assert steered.steps == plan.n_batches
        found = [view.copy() for view in steered.weights().values()]
    for a, b in zip(found, want):
        assert_array_equal(a, b)


@pytest.mark.mpi(min_size=2)
def test_learning_rate_and_outcome(comm):
    x, y = make_data("classes")
    data = dataset(comm, "last", x, y)
    batch = pt.Batch(data.x, data.y)
    with make_trainer(comm) as trainer:
        before = trainer.params.copy()
        outcome = trainer.step(batch, lr=0.0)
        assert_array_equal(trainer.params, before)
        assert outcome.weight == N
        assert not outcome.stop
        again = trainer.step(batch)
        assert again.loss == outcome.loss
        trainer.request_stop()
        assert comm.allreduce(trainer.step(batch).loss) < comm.size * again.loss
        assert trainer.step(batch).stop


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", ["allreduce", "sharded"])
def test_a_batch_that_does_not_fit_is_told_to_all(comm, how):
    x, y = make_data("classes")
    good = pt.Batch(x[comm.rank :: comm.size], y[comm.rank :: comm.size])
    bad = [
        good._replace(x=good.x[:, :2]),
        good._replace(y=good.y[:-1]),
        good._replace(y=np.full_like(good.y, 3)),
    ]
    with make_trainer(comm, **STRATEGIES[how]) as trainer:
        for batch in bad:
            with pytest.raises((ValueError, RemoteRankError)):
                trainer.step(batch if comm.rank == 1 else good)
        with pytest.raises(DivergenceError):
            trainer.step(good._replace(x=good.x * np.inf))
        assert trainer.steps == 0
        trainer.step(good)
        found = [view.copy() for view in trainer.weights().values()]
    with make_trainer(comm, **STRATEGIES[how]) as trainer:
        trainer.step(good)
        for a, b in zip(found, trainer.weights().values()):
            assert_array_equal(a, b)


@pytest.mark.mpi(min_size=2)
def test_what_trains_by_fit_alone_says_so(comm):
    x, y = make_data("classes")
    batch = pt.Batch(x, y)
    for optimizer, parallel, text in (
        (None, {"reduction": "exact"}, "exact sums rows by their number"),
        (pt.LBFGS(), {}, "LBFGS trains by fit alone"),
    ):
        model = pt.Softmax(5, 3, dtype="float64")
        with pt.Trainer(
            model,
            pt.Adam() if optimizer is None else optimizer,
            parallel=pt.Parallel(**parallel),
            comm=comm,
        ) as trainer:
            with pytest.raises(ConfigError, match=text):
                trainer.step(batch)
