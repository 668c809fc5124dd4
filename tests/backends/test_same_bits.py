"""Numba's results are bitwise equal to NumPy's; all NaNs count as equal.

IEEE 754 does not define which of two NaNs an operation returns, and compilers swap
operands.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pympi_train.backends.numpy import ops as numpy_ops

pytest.importorskip("numba")
from pympi_train.backends.numba import ops as numba_ops  # noqa: E402

ODD = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, -1e-310, 3e38, -1e-45, 1.0]
SCALE = st.sampled_from([1.0, 1 / 3, 1e-30, 0.0])
SOME = st.sampled_from([0.0, 0.1])
CASE = {
    "dtype": st.sampled_from(["float32", "float64"]),
    "seed": st.integers(0, 2**32 - 1),
    "odd": st.booleans(),
}
SHAPE = {
    "k": st.integers(0, 70) | st.just(1500),
    "w": st.integers(1, 70) | st.just(1000),
}
SIZE = st.integers(0, 300) | st.sampled_from([16_384, 32_769, 70_001])
quickly = settings(deadline=None, max_examples=60)


def random_array(rng, shape, dtype, odd):
    with np.errstate(over="ignore"):
        a = (rng.standard_normal(shape) * 10.0 ** rng.integers(-4, 4)).astype(dtype)
        if odd:
            places = rng.random(shape) < 0.2
            a[places] = rng.choice(ODD, places.sum()).astype(dtype)
    return a


def bits(a):
    a = np.where(np.isnan(a), np.nan, a).astype(a.dtype)
    return a.view(np.uint32 if a.dtype == np.float32 else np.uint64)


def check(name, arrays, *rest, **options):
    """Run both backends on copies; compare the arrays afterwards."""
    results = []
    for ops in (numpy_ops, numba_ops):
        copies = [None if a is None else a.copy() for a in arrays]
        value = getattr(ops, name)(*copies, *rest, **options)
        results.append((value, copies))
    (want_value, want), (value, got) = results
    for i, (a, b) in enumerate(zip(want, got)):
        if a is not None and a.dtype.kind == "f":
            assert np.array_equal(bits(a), bits(b)), f"{name}, array {i}"
    if value is not None and np.isfinite(want_value):
        assert value == pytest.approx(want_value, rel=1e-6, abs=1e-30)


@quickly
@given(n=SIZE, l2=SOME, momentum=SOME, nesterov=st.booleans(), scale=SCALE, **CASE)
def test_sgd(n, l2, momentum, nesterov, scale, dtype, seed, odd):
    rng = np.random.default_rng(seed)
    p, g, v = (random_array(rng, n, dtype, odd) for _ in range(3))
    how = dict(lr=0.1, grad_scale=scale, l2=l2, momentum=momentum, nesterov=nesterov)
    check("sgd_update", [p, g, v if momentum else None], **how)


@quickly
@given(n=SIZE, l2=SOME, decay=SOME, scale=SCALE, step=st.integers(1, 10**6), **CASE)
def test_adam(n, l2, decay, scale, step, dtype, seed, odd):
    rng = np.random.default_rng(seed)
    p, g, m = (random_array(rng, n, dtype, odd) for _ in range(3))
    v = np.abs(random_array(rng, n, dtype, odd))
    how = dict(lr=0.1, beta1=0.9, beta2=0.999, eps=1e-8, grad_scale=scale)
    check("adam_update", [p, g, m, v], step=step, l2=l2, decay=decay, **how)


@quickly
@given(n=SIZE, l2=SOME, scale=SCALE, **CASE)
def test_adagrad(n, l2, scale, dtype, seed, odd):
    rng = np.random.default_rng(seed)
    p, g = (random_array(rng, n, dtype, odd) for _ in range(2))
    q = np.abs(random_array(rng, n, dtype, odd))
    check("adagrad_update", [p, g, q], lr=0.1, eps=1e-8, grad_scale=scale, l2=l2)


@quickly
@given(name=st.sampled_from(["bias_add", "bias_relu", "bias_tanh"]), **SHAPE, **CASE)
def test_bias_and_activation(name, k, w, dtype, seed, odd):
    rng = np.random.default_rng(seed)
    z, b = (random_array(rng, s, dtype, odd) for s in ((k, w), (w,)))
    check(name, [z, b])


@quickly
@given(**SHAPE, **CASE)
def test_gelu(k, w, dtype, seed, odd):
    rng = np.random.default_rng(seed)
    z, b, d = (random_array(rng, s, dtype, odd) for s in ((k, w), (w,), (k, w)))
    check("bias_gelu", [z, b, np.zeros_like(z)])
    check("gelu_gradient", [d, z])


@quickly
@given(name=st.sampled_from(["relu_gradient", "tanh_gradient"]), **SHAPE, **CASE)
def test_gradients(name, k, w, dtype, seed, odd):
    rng = np.random.default_rng(seed)
    check(name, [random_array(rng, (k, w), dtype, odd) for _ in range(2)])


@quickly
@given(weighted=st.booleans(), **SHAPE, **CASE)
def test_losses(weighted, k, w, dtype, seed, odd):
    rng = np.random.default_rng(seed)
    z, y = (random_array(rng, (k, w), dtype, odd) for _ in range(2))
    weights = rng.random(k).astype(dtype) if weighted else None
    labels = rng.integers(0, w, k).astype(np.intp)
    check("softmax_cross_entropy", [z, labels, weights])
    check("logistic_loss", [z[:, :1].copy(), (labels % 2).astype(dtype), weights])
    check("squared_error", [z, y, weights])


@quickly
@given(n=SIZE, kind=st.sampled_from(["bf16", "fp16", "int8"]), **CASE)
def test_wires(n, kind, dtype, seed, odd):
    rng = np.random.default_rng(seed)
    values, residual = (random_array(rng, n, dtype, odd) for _ in range(2))
    residual[~np.isfinite(residual)] = 0
    packed = []
    for ops in (numpy_ops, numba_ops):
        codes = np.zeros(n, np.int8 if kind == "int8" else np.uint16)
        scales = np.zeros(0 if kind == "bf16" else -(-n // 256), np.float32)
        left, out = residual.copy(), values.copy()
        getattr(ops, f"pack_{kind}")(values, left, codes, scales)
        getattr(ops, f"unpack_{kind}")(codes, scales, out, True)
        packed.append((codes, bits(scales), bits(left), bits(out)))
        getattr(ops, f"unpack_{kind}")(codes, scales, out, False)
        packed[-1] += (bits(out),)
    for a, b in zip(*packed):
        assert np.array_equal(a, b)


def test_a_bit_is_seen():
    a = np.array([1.0, np.nan, 0.0], np.float32)
    b = np.array([1.0, -np.nan, 0.0], np.float32)
    assert np.array_equal(bits(a), bits(b))
    for i, other in ((0, np.nextafter(np.float32(1), np.float32(2))), (2, -0.0)):
        c = a.copy()
        c[i] = other
        assert not np.array_equal(bits(a), bits(c))
