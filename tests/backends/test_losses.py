"""Losses and their gradients compared with the formulas in float64."""

import numpy as np
import pytest
from formulas import logistic, softmax_cross_entropy, squared_error
from numpy.testing import assert_allclose

SHAPES = [(0, 4), (1, 2), (5, 1), (64, 10), (7, 1003), (20_000, 3), (2, 40_000)]
GRADIENT = {"float32": 1e-6, "float64": 1e-14}
LOSS = {"float32": 1e-6, "float64": 1e-13}


def weights_of(k, dtype, weighted):
    if not weighted:
        return None, np.ones(k)
    w = np.random.default_rng(5).uniform(0, 3, k).astype(dtype)
    w[::3] = 0
    return w, w.astype(float)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("spread", [1, 30])
def test_softmax_cross_entropy(ops, dtype, shape, weighted, spread):
    rng = np.random.default_rng(0)
    z = (spread * rng.standard_normal(shape)).astype(dtype)
    y = rng.integers(0, shape[1], shape[0]).astype(np.intp)
    w, plain_w = weights_of(shape[0], dtype, weighted)
    want, gradient = softmax_cross_entropy(z.astype(float), y, plain_w)
    got = ops.softmax_cross_entropy(z, y, w)
    assert isinstance(got, float)
    assert_allclose(got, want, rtol=spread * LOSS[dtype.name], atol=LOSS[dtype.name])
    assert_allclose(z, gradient, atol=spread * GRADIENT[dtype.name])


@pytest.mark.parametrize("k", [0, 1, 5, 256, 70_000])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("spread", [1, 30])
def test_logistic_loss(ops, dtype, k, weighted, spread):
    rng = np.random.default_rng(0)
    z = (spread * rng.standard_normal((k, 1))).astype(dtype)
    y = rng.integers(0, 2, k).astype(dtype)
    w, plain_w = weights_of(k, dtype, weighted)
    want, gradient = logistic(z[:, 0].astype(float), y.astype(float), plain_w)
    got = ops.logistic_loss(z, y, w)
    assert isinstance(got, float)
    assert_allclose(got, want, rtol=LOSS[dtype.name], atol=1e-12)
    assert_allclose(z[:, 0], gradient, atol=GRADIENT[dtype.name])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_squared_error(ops, dtype, shape, weighted):
    rng = np.random.default_rng(0)
    h, y = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    w, plain_w = weights_of(shape[0], dtype, weighted)
    want, gradient = squared_error(h.astype(float), y.astype(float), plain_w)
    got = ops.squared_error(h, y, w)
    assert isinstance(got, float)
    assert_allclose(got, want, rtol=LOSS[dtype.name])
    assert_allclose(h, gradient, atol=3 * GRADIENT[dtype.name])


def test_large_logits_overflow_nothing(ops, dtype):
    z = np.array([[1e4, -1e4, 0], [-1e30, 1e30, 0]], dtype)
    assert ops.softmax_cross_entropy(z, np.array([0, 1]), None) == 0.0
    assert_allclose(z, 0)
    z = np.array([[1e4], [-1e4]], dtype)
    assert ops.logistic_loss(z, np.array([1, 0], dtype), None) == 0.0
    assert_allclose(z, 0)
    z = np.array([[1e4], [-1e4]], dtype)
    assert ops.logistic_loss(z, np.array([0, 1], dtype), None) == 2e4
    assert_allclose(z, [[1], [-1]])


@pytest.mark.parametrize("column", [0, 3, 6])
def test_one_logit_that_is_no_number_spoils_the_loss(ops, dtype, column):
    z = np.zeros((4, 7), dtype)
    z[2, column] = np.nan
    assert np.isnan(ops.softmax_cross_entropy(z, np.zeros(4, np.intp), None))
    assert np.isnan(z[2]).all() and not np.isnan(z[[0, 1, 3]]).any()
    z = np.array([[0], [np.nan]], dtype)
    assert np.isnan(ops.logistic_loss(z, np.zeros(2, dtype), None))
    h = np.array([[0], [np.nan]], dtype)
    assert np.isnan(ops.squared_error(h, np.zeros((2, 1), dtype), None))
