"""The example of a model that is none of the package's."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import pympi_train as pt

PATH = Path(__file__).parents[1] / "examples" / "poisson.py"


@pytest.fixture(scope="module")
def poisson():
    spec = importlib.util.spec_from_file_location("poisson_example", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=[0, 1], ids=["class", "function"])
def model(poisson, request):
    return poisson.make_models(3)[request.param]


def test_gradient_and_sums(poisson, model):
    x, y = poisson.make_counts(15)
    pt.check_model(model, pt.Batch(x, y))


def test_class_takes_sample_weights(poisson):
    x, y = poisson.make_counts(15)
    weights = np.linspace(0.5, 2, 15)
    pt.check_model(poisson.make_models(3)[0], pt.Batch(x, y, weights))


def newton(x, y):
    """Return the maximum of the likelihood, by Newton's method in one process."""
    columns = np.hstack([x, np.ones((len(x), 1))])
    theta = np.zeros(columns.shape[1])
    for _ in range(30):
        mean = np.exp(columns @ theta)
        hessian = columns.T @ (mean[:, None] * columns)
        theta -= np.linalg.solve(hessian, columns.T @ (mean - y))
    return theta


def test_training_ends_near_the_maximum_of_the_likelihood(poisson, model):
    MPI = pytest.importorskip("mpi4py.MPI")
    x, y = poisson.make_counts(2000)
    _, weights = poisson.train(model, x, y, epochs=20, comm=MPI.COMM_SELF)
    found = np.concatenate([weights["weight"], weights["intercept"]])
    assert_allclose(found, newton(x, y), atol=0.05)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("n_rows", [103, 1])  # 1: all ranks but one have no row
def test_ranks_agree_with_one_process(poisson, model, comm, n_rows):
    from mpi4py import MPI

    x, y = poisson.make_counts(n_rows)
    loss, weights = poisson.train(model, x, y, epochs=3, comm=comm)
    alone_loss, alone = poisson.train(model, x, y, epochs=3, comm=MPI.COMM_SELF)
    assert loss == pytest.approx(alone_loss, rel=1e-10)
    for name, view in weights.items():
        assert_allclose(view, alone[name], rtol=0, atol=1e-10 * np.abs(view).max())
