"""Activations and their gradients compared with the formulas in float64."""

import math

import numpy as np
import pytest
from formulas import gelu, gelu_slope
from numpy.testing import assert_allclose, assert_array_equal

SHAPES = [(0, 3), (1, 1), (5, 1), (1, 7), (64, 10), (33, 515), (2500, 3), (2, 40_000)]
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


def arrays(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    z = 3 * rng.standard_normal(shape)
    return z.astype(dtype), rng.standard_normal(shape[1]).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "name, formula",
    [
        ("bias_add", lambda x: x),
        ("bias_relu", lambda x: np.where(x > 0, x, 0)),
        ("bias_tanh", np.tanh),
    ],
)
def test_bias_and_activation(ops, dtype, shape, name, formula):
    z, b = arrays(shape, dtype)
    want = formula(z.astype(float) + b.astype(float))
    getattr(ops, name)(z, b)
    assert_allclose(z, want, rtol=TOLERANCE[dtype.name], atol=TOLERANCE[dtype.name])


@pytest.mark.parametrize("shape", SHAPES)
def test_bias_gelu_keeps_its_input(ops, dtype, shape):
    z, b = arrays(shape, dtype)
    pre, x = np.full_like(z, 7), z.astype(float) + b.astype(float)
    ops.bias_gelu(z, b, pre)
    assert_allclose(pre, x, rtol=1e-6, atol=1e-6)
    assert_allclose(z, gelu(x), rtol=1e-5, atol=3 * TOLERANCE[dtype.name])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "name, slope",
    [
        ("relu_gradient", lambda y: np.where(y > 0, 1.0, 0.0)),
        ("tanh_gradient", lambda y: 1 - y**2),
        ("gelu_gradient", gelu_slope),
    ],
)
def test_gradients(ops, dtype, shape, name, slope):
    delta, kept = arrays(shape, dtype)[0], arrays(shape, dtype, seed=1)[0]
    want = delta.astype(float) * slope(kept.astype(float))
    before = kept.copy()
    getattr(ops, name)(delta, kept)
    assert_allclose(delta, want, rtol=1e-5, atol=20 * TOLERANCE[dtype.name])
    assert_array_equal(kept, before)


def test_gelu_slope_is_the_derivative(ops):
    x = np.linspace(-6, 6, 101)[None]
    delta, h = np.ones_like(x), 1e-6
    ops.gelu_gradient(delta, x)
    assert_allclose(delta, (gelu(x + h) - gelu(x - h)) / (2 * h), atol=1e-9)


def test_not_a_number_passes_through(ops, dtype):
    b = np.zeros(3, dtype)
    for name in ("bias_add", "bias_relu", "bias_tanh"):
        z = np.array([[1, np.nan, -1]], dtype)
        getattr(ops, name)(z, b)
        assert_array_equal(np.isnan(z), [[False, True, False]])
    z = np.array([[1, np.nan, -1]], dtype)
    ops.bias_gelu(z, b, np.empty_like(z))
    assert_array_equal(np.isnan(z), [[False, True, False]])


@pytest.mark.parametrize("shape", SHAPES + [(1024, 2), (1025, 2), (5000, 1)])
def test_column_sums(ops, dtype, shape):
    delta, out = arrays(shape, dtype)[0], np.full(shape[1], 7, dtype)
    ops.column_sums(delta, out)
    limit = 10 * TOLERANCE[dtype.name] * max(1, math.sqrt(shape[0]))
    assert_allclose(out, delta.astype(float).sum(axis=0), atol=limit)


def test_column_sums_of_many_rows_keep_their_digits(ops):
    delta = np.full((300_000, 3), 0.1, np.float32)
    out = np.empty(3, np.float32)
    ops.column_sums(delta, out)
    # A single running sum in float32 is off by 1e-3.
    assert_allclose(out, 300_000 * float(np.float32(0.1)), rtol=5e-5)


@pytest.mark.parametrize("shape", [(9,), (9, 4), (9, 2, 3)])
@pytest.mark.parametrize("rows", [[], [8, 0, 0, 3], list(range(9))])
def test_take_rows(ops, dtype, shape, rows):
    source = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    rows = np.array(rows, np.intp)
    out = np.empty((len(rows), *shape[1:]), dtype)
    ops.take_rows(source, rows, out)
    assert_array_equal(out, source[rows])
