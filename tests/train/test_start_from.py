"""A training that starts from given weights, with every strategy."""

import numpy as np
import pytest
import strategies
from numpy.testing import assert_allclose, assert_array_equal
from serial import make_data
from spread import dataset

import pympi_train as pt
from pympi_train.errors import (
    ConfigError,
    DataError,
    RankMismatchError,
    RemoteRankError,
)

STRATEGIES = {**strategies.PLAIN, "local": strategies.LOCAL}
SHAPES = {
    "layers.0.weight": (5, 8),
    "layers.0.bias": (8,),
    "layers.1.weight": (8, 3),
    "layers.1.bias": (3,),
}


def make_trainer(comm, how, dtype="float64", optimizer=None):
    return pt.Trainer(
        pt.MLP(5, [8], 3, dtype=dtype),
        optimizer or pt.Adam(0.02),
        batch_size=24,
        parallel=pt.Parallel(**STRATEGIES[how]),
        backend="numpy",
        comm=comm,
    )


def given(seed=1, **shapes):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in (shapes or SHAPES).items()}


def fit(trainer):
    data = None
    if not trainer.serves:
        data = dataset(trainer.comm, "hole", *make_data("classes"))
    trainer.fit(data, epochs=1)
    return [view.copy() for view in trainer.weights().values()]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", STRATEGIES)
def test_every_strategy_starts_there(comm, how):
    from mpi4py import MPI

    weights = given()
    with make_trainer(comm, how) as trainer:
        assert trainer.start_from(weights) == {}
        if not trainer.serves:
            for name, view in trainer.weights().items():
                assert_array_equal(view, weights[name])
        found = fit(trainer)
    with make_trainer(MPI.COMM_SELF, "allreduce") as trainer:
        trainer.start_from(weights)
        want = fit(trainer)
    rtol = 0.5 if how == "local" else 1e-8  # the same steps, but for rounding
    assert len(found) == len(want)
    for a, b in zip(found, want):
        assert_allclose(a, b, rtol=rtol, atol=0.1 if how == "local" else 1e-8)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", ["allreduce", "sharded-3", "server"])
def test_tensors_that_do_not_fit_keep_their_values(comm, how):
    shapes = {**SHAPES, "layers.1.weight": (8, 4), "more": (2,)}
    del shapes["layers.1.bias"]
    weights = given(**shapes)
    weights["layers.0.bias"] = np.arange(8)  # whole numbers are no weights
    with make_trainer(comm, how) as trainer:
        before = {name: view.copy() for name, view in trainer.weights().items()}
        misfits = trainer.start_from(weights)
        assert misfits == {
            "layers.0.bias": "is int64",
            "layers.1.weight": "has shape (8, 4), the model's is (8, 3)",
            "layers.1.bias": "is not there",
            "more": "is not in the model",
        }
        for name, view in trainer.weights().items() if not trainer.serves else ():
            want = before if name in misfits else weights
            assert_array_equal(view, want[name])


@pytest.mark.mpi(min_size=2)
def test_refusals_leave_the_trainer_as_it_was(comm):
    with make_trainer(comm, "sharded-3") as trainer:
        before = trainer.params.copy()
        with pytest.raises(DataError, match="no tensor fits the model: .*w is not in"):
            trainer.start_from(given(w=(3, 3)))
        bad = given()
        bad["layers.1.bias"][2] = np.nan
        with pytest.raises(DataError, match="layers.1.bias has NaN or infinity"):
            trainer.start_from(bad)
        odd = given()
        if comm.rank == comm.size - 1:
            del odd["layers.0.bias"]
        with pytest.raises(RankMismatchError, match="the same names and shapes"):
            trainer.start_from(odd)
        assert_array_equal(trainer.params, before)

        class Broken:
            shape, dtype = (3,), np.dtype("float64")

            def __getitem__(self, index):
                raise OSError("disk")

        bad["layers.1.bias"] = Broken()
        with pytest.raises((RemoteRankError, OSError), match="disk"):
            trainer.start_from(bad)
        assert_array_equal(trainer.params, before)
        fit(trainer)
        with pytest.raises(ConfigError, match="has taken steps already"):
            trainer.start_from(given())


@pytest.mark.mpi(min_size=2)
def test_weights_are_cast_and_lbfgs_starts_there_too(comm):
    with make_trainer(comm, "allreduce", dtype="float32") as trainer:
        weights = given()
        trainer.start_from(weights)
        for name, view in trainer.weights().items():
            assert_array_equal(view, weights[name].astype("float32"))
    model = pt.Softmax(5, 3, dtype="float64")
    weights = given(weight=(5, 3), intercept=(3,))
    with pt.Trainer(model, pt.LBFGS(), backend="numpy", comm=comm) as trainer:
        trainer.start_from(weights)
        assert_array_equal(trainer.weights()["weight"], weights["weight"])
        fit(trainer)
