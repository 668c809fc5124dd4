"""Updates of every backend compared with the formulas in float64."""

import numpy as np
import pytest
from formulas import adagrad, adam, sgd
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

TOLERANCE = {"float32": 2e-5, "float64": 1e-13}
SIZES = (0, 1, 7, 64, 1001, 40_000)  # 40,000: more than a block of either dtype


def problem(n, dtype, n_steps=5, seed=1):
    rng = np.random.default_rng(seed)
    start = rng.standard_normal(n).astype(dtype)
    return start, rng.standard_normal((n_steps, n)).astype(dtype)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("l2", [0.0, 0.03])
@pytest.mark.parametrize("momentum, nesterov", [(0.0, 0), (0.9, 0), (0.9, 1)])
def test_sgd_follows_the_formula(ops, dtype, n, l2, momentum, nesterov):
    how = dict(lr=0.1, grad_scale=1 / 8, l2=l2, momentum=momentum)
    how["nesterov"] = bool(nesterov)
    start, grads = problem(n, dtype)
    params = start.copy()
    velocity = np.zeros(n, dtype) if momentum else None
    for grad in grads:
        ops.sgd_update(params, grad, velocity, **how)
    want, want_v = sgd(start.astype(float), grads.astype(float), **how)
    assert_allclose(params, want, atol=TOLERANCE[dtype.name])
    if momentum:
        assert_allclose(velocity, want_v, atol=TOLERANCE[dtype.name])


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("l2", [0.0, 0.03])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_follows_algorithm_1(ops, dtype, n, l2, decay):
    how = dict(
        lr=0.05, beta1=0.9, beta2=0.999, eps=1e-8, grad_scale=1 / 8, l2=l2, decay=decay
    )
    start, grads = problem(n, dtype)
    params, m, v = start.copy(), np.zeros(n, dtype), np.zeros(n, dtype)
    for step, grad in enumerate(grads, start=1):
        ops.adam_update(params, grad, m, v, step=step, **how)
    want, want_m, want_v = adam(start.astype(float), grads.astype(float), **how)
    assert_allclose(params, want, atol=TOLERANCE[dtype.name])
    assert_allclose(m, want_m, atol=TOLERANCE[dtype.name])
    assert_allclose(v, want_v, atol=TOLERANCE[dtype.name])


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("l2", [0.0, 0.03])
def test_adagrad_follows_the_formula(ops, dtype, n, l2):
    how = dict(lr=0.1, eps=1e-8, grad_scale=1 / 8, l2=l2)
    start, grads = problem(n, dtype)
    params, squares = start.copy(), np.zeros(n, dtype)
    for grad in grads:
        ops.adagrad_update(params, grad, squares, **how)
    want, want_squares = adagrad(start.astype(float), grads.astype(float), **how)
    assert_allclose(params, want, atol=TOLERANCE[dtype.name])
    assert_allclose(squares, want_squares, atol=TOLERANCE[dtype.name])


def test_adagrad_leaves_what_has_no_gradient(ops, dtype):
    start, _ = problem(1001, dtype)
    params, squares = start.copy(), np.zeros(1001, dtype)
    how = dict(lr=0.1, eps=1e-8, grad_scale=1 / 8, l2=0.0)
    ops.adagrad_update(params, np.zeros(1001, dtype), squares, **how)
    assert params.tobytes() == start.tobytes() and not squares.any()


def test_adam_takes_the_complement_of_beta_in_double(ops):
    params, m, v = (np.zeros(3, np.float32) for _ in range(3))
    how = dict(lr=0.1, beta1=0.9, beta2=0.999, eps=1e-8, grad_scale=1.0, l2=0.0)
    ops.adam_update(params, np.ones(3, np.float32), m, v, step=1, decay=0.0, **how)
    assert_array_equal(v, np.float32(0.001))  # 1.0f - 0.999f is 0.00099998...


def test_updates_leave_the_gradient_alone(ops, dtype):
    start, grads = problem(1001, dtype, n_steps=1)
    grad, (velocity, m, v) = grads[0], np.zeros((3, 1001), dtype)
    before = grad.copy()
    both = dict(lr=0.1, grad_scale=0.5, l2=0.1)
    adams = dict(step=1, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.1)
    ops.sgd_update(start, grad, velocity, momentum=0.9, nesterov=True, **both)
    ops.adam_update(start, grad, m, v, **adams, **both)
    assert_array_equal(grad, before)


@pytest.mark.parametrize("n", SIZES + (65_536, 70_001))
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_squared_norm(ops, dtype, n, l2):
    params, grads = problem(n, dtype, n_steps=1)
    got = ops.squared_norm(grads[0], params, grad_scale=0.25, l2=l2)
    g = 0.25 * grads[0].astype(float) + l2 * params.astype(float)
    assert isinstance(got, float)
    assert_allclose(got, np.sum(g * g), rtol=1e-6 if dtype == np.float32 else 1e-13)


def test_squared_norm_adds_up_in_float64(ops):
    grad = np.full(2_000_000, 1e-3, np.float32)  # float32 sums are off by 1e-3
    want = grad.size * float(np.float32(1e-3)) ** 2
    got = ops.squared_norm(grad, grad, grad_scale=1.0, l2=0.0)
    assert_allclose(got, want, rtol=1e-12)


def test_squared_norm_needs_no_params_without_l2(ops, dtype):
    grad = np.array([3.0, 4.0], dtype)
    assert ops.squared_norm(grad, None, grad_scale=1.0, l2=0.0) == 25.0


@settings(deadline=None, max_examples=25)
@given(n=st.integers(520_000, 1_100_000), n_threads=st.integers(2, 5))
def test_norm_and_update_do_not_know_the_number_of_threads(n, n_threads):
    pytest.importorskip("numba")
    from pympi_train.backends import threads
    from pympi_train.backends.numba import ops as numba_ops

    grad = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    how = dict(lr=0.1, grad_scale=0.5, l2=0.1, momentum=0.9, nesterov=True)
    alone, crew = threads._crew, threads._Crew()
    crew.resize(n_threads)
    results = []
    try:
        for threads._crew in (alone, crew):
            norm = numba_ops.squared_norm(grad, grad, grad_scale=0.3, l2=0.1)
            params, velocity = grad.copy(), np.ones_like(grad)
            numba_ops.sgd_update(params, grad, velocity, **how)
            results.append((norm, params.tobytes(), velocity.tobytes()))
    finally:
        threads._crew = alone
        crew.resize(1)
    assert results[0] == results[1]
