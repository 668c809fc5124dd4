"""Every validation row counts once: the metrics are scikit-learn's on all of them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.metrics import root_mean_squared_error as rmse_score
from spread import SPREADS, dataset

import pympi_train as pt
from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.data.sources.base import Units
from pympi_train.flat.memory import empty_block
from pympi_train.train.metrics import Evaluator

N, N_FEATURES = 47, 4


def measure(comm, spread, model, params, x, y, weights=None, micro_batch_size=5):
    data = dataset(comm, spread, x, y, weights)
    if spread != "even" and comm.size > 1:
        assert 0 in comm.allgather(len(data))
    evaluate = Evaluator(
        model, data, comm, micro_batch_size=micro_batch_size, ops=numpy_ops
    )
    return evaluate(params)


def random_point(model, seed=0):
    params = empty_block(model.layout)
    views = model.layout.views(params)
    for view in views:
        view[...] = np.random.default_rng(seed).standard_normal(view.shape)
    return views


def features(n=N):
    return np.random.default_rng(4).standard_normal((n, N_FEATURES))


def check_classification(comm, spread, make_model, n_classes, n, micro_batch_size):
    x, model = features(n), make_model()
    y = np.random.default_rng(6).integers(0, n_classes, n)
    weights = np.random.default_rng(7).uniform(0, 2, n)
    params = random_point(model)
    z = model.predict(params, x).copy()
    if z.shape[1] == 1:
        z = np.hstack([0 * z, z])
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    want = {
        "accuracy": accuracy_score(y, z.argmax(axis=1), sample_weight=weights),
        "loss": log_loss(y, p, sample_weight=weights, labels=range(n_classes)),
    }
    found = measure(comm, spread, model, params, x, y, weights, micro_batch_size)
    assert found == pytest.approx(want, rel=1e-12)
    want["loss"] = log_loss(y, p, labels=range(n_classes))
    want["accuracy"] = accuracy_score(y, z.argmax(axis=1))
    found = measure(comm, spread, model, params, x, y, None, micro_batch_size)
    assert found == pytest.approx(want, rel=1e-12)


CLASSIFIERS = {
    "softmax": (lambda: pt.Softmax(N_FEATURES, 3, dtype="float64"), 3),
    "logistic": (lambda: pt.Logistic(N_FEATURES, dtype="float64"), 2),
    "mlp": (lambda: pt.MLP(N_FEATURES, [5], 4, dtype="float64"), 4),
}


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("n", [1, N])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classification(comm, name, spread, n):
    check_classification(comm, spread, *CLASSIFIERS[name], n, 5)


@pytest.mark.parametrize("micro_batch_size", [1, 5, 47, 48])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classification_on_one_rank(name, micro_batch_size):
    MPI = pytest.importorskip("mpi4py.MPI")
    model = CLASSIFIERS[name]
    check_classification(MPI.COMM_SELF, "even", *model, N, micro_batch_size)


def check_regression(comm, spread, n_targets, constant):
    x, model = features(), pt.Linear(N_FEATURES, n_targets, dtype="float64")
    y = np.random.default_rng(8).standard_normal((N, n_targets)) + 1e3
    params = random_point(model)
    if constant == "missed":
        y[:, -1] = 3.0
    elif constant == "hit":
        y[:, -1] = 3.0
        params[0][:, -1], params[1][-1] = 0, 3.0
    h = model.predict(params, x).copy()
    found = measure(comm, spread, model, params, x, y)
    want = {
        "loss": np.square(h - y).sum() / (2 * N),
        "rmse": rmse_score(y, h),
        "r2": r2_score(y, h),
    }
    assert found == pytest.approx(want, rel=1e-10)
    weights = np.random.default_rng(9).uniform(0, 2, N)
    weights[::7] = 0
    if constant is None:
        y[::7] = -5e3  # rows that do not count
    found = measure(comm, spread, model, params, x, y, weights)
    assert found["rmse"] == pytest.approx(rmse_score(y, h, sample_weight=weights))
    if constant is None:  # by weighted means, scikit-learn sees no constant as one
        assert found["r2"] == pytest.approx(r2_score(y, h, sample_weight=weights))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("constant", [None, "missed", "hit"])
@pytest.mark.parametrize("n_targets", [1, 3])
def test_regression(comm, n_targets, constant, spread):
    check_regression(comm, spread, n_targets, constant)


@pytest.mark.parametrize("constant", [None, "missed", "hit"])
@pytest.mark.parametrize("n_targets", [1, 3])
def test_regression_on_one_rank(n_targets, constant):
    MPI = pytest.importorskip("mpi4py.MPI")
    check_regression(MPI.COMM_SELF, "even", n_targets, constant)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", SPREADS)
def test_constant_target_that_no_mean_hits(comm, spread):
    """The mean of 47 times 0.1 is 0.1 on some numbers of rows and not on others."""
    from mpi4py import MPI

    x, model = features(), pt.Linear(N_FEATURES, 1, dtype="float64")
    y = np.full((N, 1), 0.1)
    assert np.square(y - y.mean()).sum() > 0  # what must not decide
    for where, how in ((comm, spread), (MPI.COMM_SELF, "even")):
        found = measure(where, how, model, random_point(model), x, y)
        assert found["r2"] == 0


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", SPREADS)
def test_offsets_do_not_spoil_r2(comm, spread):
    x, model = features(), pt.Linear(N_FEATURES, 1, dtype="float64")
    params = random_point(model)
    params[1][:] = 1e7
    noise = 0.1 * np.random.default_rng(1).standard_normal((N, 1))
    y = model.predict(params, x) + noise
    found = measure(comm, spread, model, params, x, y)
    h = model.predict(params, x)
    assert found["r2"] == pytest.approx(r2_score(y, h), rel=1e-6)
    assert 0.5 < found["r2"] < 1


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", SPREADS)
def test_model_of_ones_own_with_flat_targets(comm, spread):
    """Targets of shape (k,) against outputs of shape (k, 1)."""
    model = pt.FunctionModel(
        [pt.Tensor("w", (N_FEATURES,))],
        lambda params, batch, grads: float(len(batch.x)),
        predict=lambda params, x: (x @ params["w"])[:, None],
        task="regression",
        dtype="float64",
    )
    x, params = features(), random_point(model)
    y = x @ params[0] + 0.3 * np.random.default_rng(2).standard_normal(N)
    found = measure(comm, spread, model, params, x, y)
    want = {
        "loss": 1.0,
        "rmse": rmse_score(y, x @ params[0]),
        "r2": r2_score(y, x @ params[0]),
    }
    assert found == pytest.approx(want, rel=1e-12)


@pytest.mark.mpi(min_size=2)
def test_model_without_task_reports_its_loss_alone(comm):
    model = pt.FunctionModel(
        [pt.Tensor("w", (1,))], lambda p, batch, g: 2.0 * len(batch.x), dtype="float64"
    )
    found = measure(comm, "last", model, random_point(model), features(), np.zeros(N))
    assert found == {"loss": 2.0}


@pytest.mark.mpi(min_size=2)
def test_rows_that_all_weigh_nothing(comm):
    model = pt.Softmax(N_FEATURES, 2, dtype="float64")
    y, params = np.zeros(N, dtype=int), random_point(model)
    with pytest.raises(pt.errors.DataError, match="at least one weight above 0"):
        measure(comm, "hole", model, params, features(), y, np.zeros(N))


@pytest.mark.mpi(min_size=2)
def test_impossible_class_on_one_rank_raises_on_every_rank(comm):
    model = pt.Softmax(N_FEATURES, 2, dtype="float64")
    y = np.zeros(N, dtype=int)
    y[-1] = 2
    error = ValueError if comm.rank == comm.size - 1 else pt.errors.RemoteRankError
    with pytest.raises(error, match="expected class indices 0 to 1"):
        measure(comm, "even", model, random_point(model), features(), y)


def test_outputs_are_not_kept_from_loss():
    """Metrics and loss share workspaces: the order of the calls must not matter."""
    MPI = pytest.importorskip("mpi4py.MPI")
    model = pt.MLP(N_FEATURES, [6], 2, task="regression", dtype="float64")
    x, params = features(), random_point(model)
    y = model.predict(params, x).copy()
    found = measure(MPI.COMM_SELF, "even", model, params, x, y)
    assert_allclose([found["loss"], found["rmse"], found["r2"]], [0, 0, 1], atol=1e-12)


@pytest.mark.mpi(min_size=2)
def test_metrics_in_the_units_of_the_targets(comm):
    """Of scaled targets as scikit-learn's of these in their own units, by name."""
    x, model = features(), pt.Linear(N_FEATURES, 2, dtype="float64")
    y = np.random.default_rng(6).standard_normal((N, 2))
    params, scale, mean = random_point(model), np.array([1e5, 0.25]), [4e5, -3]
    data = dataset(comm, "even", x, y)
    data.units = Units(("price", "size"), scale)
    how = {"micro_batch_size": 5, "ops": numpy_ops}
    found = Evaluator(model, data, comm, **how)(params)
    own, z = y * scale + mean, model.predict(params, x) * scale + mean
    for column, name in enumerate(data.units.names):
        pair = own[:, column], z[:, column]
        want = {"rmse": rmse_score(*pair), "r2": r2_score(*pair)}
        assert found["targets"][name] == pytest.approx(want, rel=1e-9)
    assert found["rmse"] == pytest.approx(rmse_score(own, z), rel=1e-9)
    assert found["r2"] == pytest.approx(r2_score(own, z), rel=1e-9)
    data.units = Units(("price", "size"))
    found = Evaluator(model, data, comm, **how)(params)
    assert found["rmse"] == pytest.approx(rmse_score(own / scale, z / scale), rel=1e-9)
