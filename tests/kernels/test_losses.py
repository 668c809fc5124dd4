"""The kernels of the losses, compared with the formulas in float64."""

import formulas
import numpy as np
import pytest
from numpy.testing import assert_allclose

SHAPES = [(0, 4), (1, 1), (1, 2), (5, 3), (64, 10), (37, 33), (3, 1003), (700, 2)]
WIDTHS = (1, 2, 8, 32, 64, 256)


def weights_of(place, kind, k, weighted, rng):
    if not weighted:
        return None, np.ones(k)
    w = rng.uniform(0, 3, k).astype(kind.wide)
    w[::3] = 0
    return place(w), w.astype(float)


def finish(run, place, partials):
    found = place(np.zeros(1))
    run("losses", "sum_finish", partials, np.int32(len(partials)), found, grid=1)
    return found[0]


@pytest.mark.parametrize("count", [0, 1, 255, 257, 1024])
def test_partial_sums_are_added_up(run, place, rng, count):
    partials = rng.integers(-1000, 1000, count).astype(float)
    assert finish(run, place, place(partials)) == partials.sum()


def limits(kind, spread=1):
    """Return tolerances of a loss sum and of a gradient."""
    gradient = 4 * kind.eps + (2e-6 if kind.wide == "f4" else 1e-14)
    return {"rtol": 5e-6 if kind.wide == "f4" else 1e-12}, {"atol": spread * gradient}


def softmax(run, place, kind, z, y, w, width):
    k, c = z.shape
    partials, shape = place(np.zeros(3)), (np.int64(k), np.int64(c), np.int32(width))
    labels = place(np.asarray(y, np.int64))
    run("losses", f"softmax_{kind}", z, labels, w, *shape, partials)
    return finish(run, place, partials)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("spread", [1, 30])
def test_softmax(run, place, rng, kind, shape, weighted, spread):
    k, c = shape
    logits = kind.store(spread * rng.standard_normal(shape))
    y = rng.integers(0, c, k)
    w, plain = weights_of(place, kind, k, weighted, rng)
    want, gradient = formulas.softmax_cross_entropy(kind.read(logits), y, plain)
    z = place(logits, shift=k % 2)
    got = softmax(run, place, kind, z, y, w, WIDTHS[k % len(WIDTHS)])
    loss, slope = limits(kind, 3)
    assert_allclose(got, want, atol=1e-6, **loss)
    assert_allclose(kind.read(z), gradient, rtol=0, **slope)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("c", [70, 2100])  # less and more than registers hold
def test_softmax_at_every_width_of_a_row(run, place, rng, kind, width, c):
    k = 40 if c < 100 else 7  # with 256 threads per row, several rows per block
    logits = kind.store(4 * rng.standard_normal((k, c)))
    y = rng.integers(0, c, k)
    want, gradient = formulas.softmax_cross_entropy(kind.read(logits), y, np.ones(k))
    z = place(logits)
    got = softmax(run, place, kind, z, y, None, width)
    loss, slope = limits(kind, 2)
    assert_allclose(got, want, **loss)
    assert_allclose(kind.read(z), gradient, rtol=0, **slope)


def test_large_logits_overflow_nothing(run, place, kind):
    z = place(kind.store([[6e4, -6e4, 0], [-6e4, 6e4, 0]]))
    assert softmax(run, place, kind, z, [0, 1], None, 2) == 0
    assert_allclose(kind.read(z), 0)
    z = place(kind.store([[6e4], [-6e4]]))
    right = place(np.array([1, 0], kind.wide))
    assert logistic(run, place, kind, z, right, None) == 0
    z = place(kind.store([[5e4], [-5e4]]))
    wrong = place(np.array([0, 1], kind.wide))
    assert_allclose(logistic(run, place, kind, z, wrong, None), 1e5, rtol=4 * kind.eps)
    assert_allclose(kind.read(z), [[1], [-1]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 3, 6])
@pytest.mark.parametrize("width", [1, 4, 64])
def test_softmax_of_what_is_not_finite(run, place, kind, bad, column, width):
    logits = np.zeros((4, 7))
    logits[2, column] = bad
    z = place(kind.store(logits))
    loss = softmax(run, place, kind, z, [0] * 4, None, width)
    found = kind.read(z)
    assert np.isfinite(found[[0, 1, 3]]).all()
    if bad == -np.inf and column != 0:  # a class of probability 0
        assert_allclose(loss, 3 * np.log(7) + np.log(6), rtol=1e-6)
    elif bad == -np.inf:  # the label's class
        assert loss == np.inf
    else:
        assert np.isnan(loss) and np.isnan(found[2]).all()


def test_a_row_of_minus_infinity_is_not_a_number(run, place, kind):
    z = place(kind.store(np.full((2, 3), -np.inf)))
    assert np.isnan(softmax(run, place, kind, z, [0, 1], None, 4))
    assert np.isnan(kind.read(z)).all()


def logistic(run, place, kind, z, y, w):
    partials = place(np.zeros(3))
    run("losses", f"logistic_{kind}", z, y, w, np.int64(len(z)), partials)
    return finish(run, place, partials)


@pytest.mark.parametrize("k", [0, 1, 5, 256, 2001])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("spread, shift", [(1, 0), (1, 1), (30, 0)])
def test_logistic(run, place, rng, kind, k, weighted, spread, shift):
    logits = kind.store(spread * rng.standard_normal(k))
    y = rng.integers(0, 2, k)
    w, plain = weights_of(place, kind, k, weighted, rng)
    want, gradient = formulas.logistic(kind.read(logits), y.astype(float), plain)
    z = place(logits, shift)
    got = logistic(run, place, kind, z, place(y.astype(kind.wide), shift), w)
    loss, slope = limits(kind, 3)
    assert_allclose(got, want, atol=1e-7, **loss)
    assert_allclose(kind.read(z), gradient, rtol=0, **slope)


def test_logistic_of_what_is_not_finite(run, place, kind):
    z = place(kind.store([0, np.nan, 0]))
    assert np.isnan(logistic(run, place, kind, z, place(np.zeros(3, kind.wide)), None))
    assert np.isnan(kind.read(z)).tolist() == [False, True, False]
    z = place(kind.store([np.inf, -np.inf]))
    y = place(np.array([0, 1], kind.wide))
    assert np.isnan(logistic(run, place, kind, z, y, None))  # 0 times inf, as in NumPy
    assert kind.read(z).tolist() == [1, -1]


def squares(run, place, kind, h, y, w):
    k, t = h.shape
    partials = place(np.zeros(3))
    run("losses", f"squares_{kind}", h, y, w, np.int64(k), np.int64(t), partials)
    return finish(run, place, partials)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted, shift", [(False, 0), (True, 0), (True, 1)])
def test_squared_error(run, place, rng, kind, shape, weighted, shift):
    outputs = kind.store(rng.standard_normal(shape))
    y = rng.standard_normal(shape).astype(kind.wide)
    w, plain = weights_of(place, kind, shape[0], weighted, rng)
    want, gradient = formulas.squared_error(kind.read(outputs), y.astype(float), plain)
    h = place(outputs, shift)
    got = squares(run, place, kind, h, place(y, shift), w)
    loss, slope = limits(kind, 8)
    assert_allclose(got, want, **loss)
    assert_allclose(kind.read(h), gradient, rtol=0, **slope)


def test_squared_error_of_what_is_not_finite(run, place, kind):
    h = place(kind.store([[np.nan, 0], [np.inf, 0]]))
    loss = squares(run, place, kind, h, place(np.zeros((2, 2), kind.wide)), None)
    assert np.isnan(loss)
    assert np.isnan(kind.read(h)[0, 0]) and kind.read(h)[1, 0] == np.inf
