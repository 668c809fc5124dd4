"""L-BFGS through the training loop: scikit-learn's solution on any number of ranks."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression, Ridge
from spread import SPREADS, dataset

import pympi_train as pt
from pympi_train.comm.checks import is_agreed
from pympi_train.flat.state import State

N, WIDTH, L2 = 150, 6, 0.01


def make_data(n_classes=2):
    rng = np.random.default_rng(12)
    x = rng.standard_normal((N, WIDTH)) + 0.5
    z = x @ rng.standard_normal((WIDTH, n_classes))
    return x, (z + rng.standard_normal((N, n_classes))).argmax(axis=1)


def fit(comm, spread, model, x, y, *, weights=None, epochs=200, **kwargs):
    """Return (weights by name, records, calls of the model's loss). Collective."""
    data = dataset(comm, spread, x, y, weights)
    if spread != "even" and comm.size > 1:
        assert 0 in comm.allgather(len(data))
    calls, loss = [], model.loss
    model.loss = lambda *args: calls.append(1) or loss(*args)
    optimizer = kwargs.pop("optimizer", None) or pt.LBFGS(tolerance=1e-9, ftol=0)
    kwargs = {"l2": L2, "backend": "numpy", **kwargs}
    with pt.Trainer(model, optimizer, comm=comm, **kwargs) as trainer:
        records = trainer.fit(data, epochs=epochs)
        return trainer.weights(), records, len(calls) - 1  # a rehearsal


def check_logistic(comm, spread):
    x, y = make_data()
    want = LogisticRegression(C=1 / (L2 * N), tol=1e-12, max_iter=10_000).fit(x, y)
    model = pt.Logistic(WIDTH, dtype="float64")
    weights, records, n_evaluations = fit(comm, spread, model, x, y)
    assert_allclose(weights["weight"].ravel(), want.coef_[0], atol=1e-6)
    assert_allclose(weights["intercept"], want.intercept_, atol=1e-6)
    assert len(records) <= n_evaluations <= 1.5 * len(records) + 3 < 60
    losses = [record["train_loss"] for record in records]
    assert all(after <= before + 1e-12 for before, after in zip(losses, losses[1:]))
    assert [record["epoch"] for record in records] == [*range(1, len(records) + 1)]
    assert records[-1]["step"] == len(records)
    return weights, records


def test_logistic_regression_on_one_rank():
    MPI = pytest.importorskip("mpi4py.MPI")
    check_logistic(MPI.COMM_SELF, "even")


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", SPREADS)
def test_logistic_regression(comm, spread):
    from mpi4py import MPI

    weights, records = check_logistic(comm, spread)
    alone, alone_records = check_logistic(MPI.COMM_SELF, "even")
    for name, view in weights.items():
        assert_allclose(view, alone[name], rtol=0, atol=1e-9)
        assert comm.allgather(view.tobytes()) == [view.tobytes()] * comm.size
    assert len(records) == len(alone_records)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", ["even", "hole"])
def test_softmax_regression_with_class_weights(comm, spread):
    x, y = make_data(3)
    cost = np.array([1.0, 2.0, 0.5])
    want = LogisticRegression(
        C=1 / (L2 * cost[y].sum()),
        class_weight=dict(enumerate(cost)),
        tol=1e-12,
        max_iter=10_000,
    ).fit(x, y)
    model = pt.Softmax(WIDTH, 3, dtype="float64")
    weights, _, _ = fit(comm, spread, model, x, y, weights=cost[y])
    assert_allclose(weights["weight"].T, want.coef_, atol=1e-6)
    intercept = weights["intercept"] - weights["intercept"].mean()
    assert_allclose(intercept, want.intercept_ - want.intercept_.mean(), atol=1e-6)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("micro_batch_size", [7, 4096])
def test_linear_regression(comm, micro_batch_size):
    x, _ = make_data()
    y = x @ np.arange(12.0).reshape(6, 2) + np.random.default_rng(0).normal(size=(N, 2))
    want = Ridge(alpha=L2 * N, tol=1e-14).fit(x, y)
    model = pt.Linear(WIDTH, 2, dtype="float64")
    weights, _, _ = fit(comm, "last", model, x, y, micro_batch_size=micro_batch_size)
    assert_allclose(weights["weight"].T, want.coef_, atol=1e-6)
    assert_allclose(weights["intercept"], want.intercept_, atol=1e-6)


@pytest.mark.mpi(min_size=2)
def test_start_at_the_minimum_gives_one_record(comm):
    """All targets zero: so are the best parameters, which training starts from."""
    x, _ = make_data()
    model = pt.Linear(WIDTH, 1, dtype="float64")
    weights, records, n_evaluations = fit(comm, "hole", model, x, np.zeros((N, 1)))
    assert [(r["epoch"], r["step"], r["train_loss"]) for r in records] == [(1, 0, 0.0)]
    assert n_evaluations == 1
    assert not weights["weight"].any()


@pytest.mark.mpi(min_size=2)
def test_at_most_so_many_iterations(comm):
    x, y = make_data()
    model = pt.Logistic(WIDTH, dtype="float64")
    _, records, _ = fit(comm, "hole", model, x, y, epochs=3)
    assert len(records) == 3


@pytest.mark.mpi(min_size=2)
def test_start_that_is_not_finite(comm):
    """Said alike by every rank, so that none of them ends the job."""
    x, y = make_data()
    x[-1, 0] = 1e300
    model = pt.Linear(WIDTH, 1, dtype="float64")
    y = np.full((N, 1), 1e300)
    with pytest.raises(pt.errors.DivergenceError) as caught:
        fit(comm, "even", model, x, y)
    assert is_agreed(caught.value, comm)
    assert len(set(comm.allgather(str(caught.value)))) == 1


@pytest.mark.mpi(min_size=2)
def test_float32(comm):
    x, y = make_data()
    want = LogisticRegression(C=1 / (L2 * N), tol=1e-12, max_iter=10_000).fit(x, y)
    weights, records, n_evaluations = fit(
        comm,
        "hole",
        pt.Logistic(WIDTH),
        x.astype("float32"),
        y,
        optimizer=pt.LBFGS(tolerance=1e-5),
    )
    assert_allclose(weights["weight"].ravel(), want.coef_[0], atol=2e-4)
    assert n_evaluations < 60


@pytest.mark.mpi(min_size=2)
def test_a_stop_asked_for_between_iterations_takes_no_further_one(comm):
    x, y = make_data()
    data, model = dataset(comm, "even", x, y), pt.Logistic(WIDTH, dtype="float64")
    with pt.Trainer(model, pt.LBFGS(), l2=L2, comm=comm) as trainer:

        def on_epoch(record):
            if comm.rank == 1 and record["epoch"] == 2:
                trainer.request_stop()

        records = trainer.fit(data, epochs=9, on_epoch=on_epoch)
        assert (trainer.ended, len(records), trainer.steps) == ("stop", 2, 2)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("optimizer", ["lbfgs", "gd"])
def test_patience_that_ran_out_before_a_state_was_taken_is_over(comm, optimizer):
    x, y = make_data()
    data, model = dataset(comm, "even", x, y), pt.Logistic(WIDTH, dtype="float64")
    make = {"lbfgs": lambda: pt.LBFGS(), "gd": lambda: pt.GD(1e-12)}[optimizer]
    how = {"patience": 1, "monitor": "accuracy"}
    states = []
    with pt.Trainer(model, make(), l2=L2, comm=comm) as trainer:

        def on_epoch(record):
            states.append(State.merged(comm.allgather(trainer.state())))

        trainer.fit(data, data, epochs=60, on_epoch=on_epoch, **how)
        assert trainer.ended == "patience"
    with pt.Trainer(model, make(), l2=L2, comm=comm) as trainer:
        trainer.load_state(states[-1])
        assert trainer.fit(data, data, epochs=60, **how) == []
        assert trainer.ended == "patience"


@pytest.mark.mpi(min_size=2)
def test_patience_that_runs_out_wins_over_a_stop(comm):
    """As with steps: training goes back to the best epoch."""
    x, y = make_data()
    data, model = dataset(comm, "even", x, y), pt.Logistic(WIDTH, dtype="float64")
    with pt.Trainer(model, pt.LBFGS(), l2=L2, comm=comm) as trainer:

        def on_epoch(record):
            if accuracies and record["accuracy"] <= max(accuracies):
                trainer.request_stop()
            accuracies.append(record["accuracy"])

        accuracies = []
        trainer.fit(
            data, data, epochs=60, patience=1, monitor="accuracy", on_epoch=on_epoch
        )
        assert trainer.ended == "patience"
        assert trainer.kept["accuracy"] == max(accuracies) > 0
