"""The kernels of bias, activations and column sums, compared with float64."""

import formulas
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

SHAPES = [(0, 3), (1, 1), (5, 1), (1, 7), (64, 10), (33, 515), (40, 512), (900, 8)]
BIAS = {
    "add": lambda x: x,
    "relu": lambda x: np.where(x <= 0, 0, x),
    "tanh": np.tanh,
    "gelu": formulas.gelu,
}
SLOPES = {
    "relu": lambda y: np.where(y > 0, 1.0, 0.0),
    "tanh": lambda y: 1 - y**2,
    "gelu": formulas.gelu_slope,
}


def close(kind, scale=1.0):
    """Return tolerances: a few roundings of the arithmetic, and one of the element."""
    return {
        "rtol": 2 * kind.eps + (1e-5 if kind.wide == "f4" else 1e-13),
        "atol": scale * (2e-6 if kind.wide == "f4" else 1e-14),
    }


def sizes(z):
    return np.int64(z.size), np.int64(z.shape[1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("name", BIAS)
def test_bias_and_activation(run, place, rng, kind, shape, shift, name):
    values = kind.store(3 * rng.standard_normal(shape))
    bias = kind.store(rng.standard_normal(shape[1]))
    x = kind.read(values) + kind.read(bias)
    z, b, pre = place(values, shift), place(bias, shift), None
    if name == "gelu":
        pre = place(np.zeros(shape, kind.dtype), shift)
    run("activations", f"bias_{name}_{kind}", z, b, pre, *sizes(z))
    assert_allclose(kind.read(z), BIAS[name](x), **close(kind, 4))
    if pre is not None:
        assert_allclose(kind.read(pre), x, **close(kind))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("name", SLOPES)
def test_gradients(run, place, rng, kind, shape, shift, name):
    delta = kind.store(rng.standard_normal(shape))
    kept = kind.store(3 * rng.standard_normal(shape))
    want = kind.read(delta) * SLOPES[name](kind.read(kept))
    d, x = place(delta, shift), place(kept, shift)
    run("activations", f"{name}_gradient_{kind}", d, x, np.int64(d.size))
    assert_allclose(kind.read(d), want, **close(kind, 30))
    assert_array_equal(x, kept)


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_gradients_of_what_is_not_finite(run, place, kind, name, wrong):
    # In a pack of 16 bytes and in the tail after it.
    delta, kept = np.ones(19), np.full(19, 0.5)
    delta[[2, 17]] = wrong
    kept[[4, 18]] = wrong
    d, x = place(kind.store(delta)), place(kind.store(kept))
    run("activations", f"{name}_gradient_{kind}", d, x, np.int64(19))
    with np.errstate(all="ignore"):
        want = kind.read(kind.store(delta * SLOPES[name](kept)))
    got, other = kind.read(d), np.isfinite(want)
    assert_allclose(got[other], want[other], **close(kind))
    assert_array_equal(got[~other], want[~other])


@pytest.mark.parametrize("name", BIAS)
def test_what_is_not_finite_passes_through_as_in_numpy(run, place, kind, name):
    x = np.array([[1, np.nan, -1, np.inf, -np.inf, 0, 2, 3]])
    z, b = place(kind.store(x)), place(kind.store(np.zeros(8)))
    run("activations", f"bias_{name}_{kind}", z, b, None, *sizes(z))
    with np.errstate(all="ignore"):
        want = BIAS[name](x)
    got = kind.read(z)
    assert_array_equal(np.isnan(got), np.isnan(want))
    assert_array_equal(np.isinf(got), np.isinf(want))


def test_relu_makes_no_negative_zero(run, place, kind):
    z, b = place(kind.store([[-0.0, -1.0]])), place(kind.store([-0.0, 0.0]))
    run("activations", f"bias_relu_{kind}", z, b, None, *sizes(z))
    assert not np.signbit(kind.read(z)).any()


def test_relu_slope_of_what_is_not_finite(run, place, kind):
    delta = place(kind.store([np.nan, np.inf, np.inf, 1.0]))
    out = place(kind.store([0.0, 0.0, 1.0, np.nan]))
    run("activations", f"relu_gradient_{kind}", delta, out, np.int64(4))
    assert_array_equal(kind.read(delta), [np.nan, np.nan, np.inf, 0])


def column_sums(run, place, kind, delta, size):
    k, w = delta.shape
    n_parts = max(1, -(-k // size))
    partials = place(np.zeros((n_parts, w), kind.wide))
    out = place(np.full(w, 7, kind.dtype))
    shape = (np.int64(k), np.int64(w), np.int64(size))
    grid = (-(-w // 32), n_parts)
    run(
        "activations",
        f"column_partials_{kind}",
        delta,
        *shape,
        partials,
        out,
        grid=grid,
    )
    if n_parts > 1:
        tail = (np.int64(n_parts), np.int64(w), out)
        run("activations", f"column_finish_{kind}", partials, *tail, grid=grid[0])
    return out


@pytest.mark.parametrize("shape", SHAPES + [(1024, 2), (1025, 33), (20, 900)])
@pytest.mark.parametrize("size", [16, 4096])
def test_column_sums(run, place, rng, kind, shape, size):
    delta = kind.store(rng.standard_normal(shape))
    got = column_sums(run, place, kind, place(delta), size)
    want = kind.read(delta).sum(axis=0)
    assert_allclose(
        kind.read(got),
        want,
        rtol=2 * kind.eps,
        atol=2e-5 if kind.wide == "f4" else 1e-12,
    )


def test_column_sums_of_what_is_not_finite(run, place, kind):
    delta = np.zeros((20, 3))
    delta[11, 0], delta[17, 1] = np.nan, np.inf
    got = column_sums(run, place, kind, place(kind.store(delta)), 8)
    assert_array_equal(kind.read(got), [np.nan, np.inf, 0])
