"""The kernels of array operations."""

import numpy as np
import pytest
from kernel_runs import Kind
from numpy.testing import assert_allclose, assert_array_equal

SIZES = (0, 1, 7, 8, 1001, 20_011)
HALVES = [Kind("f16"), Kind("bf16")]
halves = pytest.mark.parametrize("half", HALVES, ids=repr)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shift", [0, 1])
def test_scale(run, place, rng, kind, n, shift):
    values = kind.store(rng.standard_normal(n))
    x = place(values, shift)
    run("arrays", f"scale_{kind}", x, np.int64(n), kind.wide.type(0.5))
    assert_array_equal(kind.read(x), 0.5 * kind.read(values))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shift", [0, 1])
def test_axpy(run, place, rng, kind, n, shift):
    values = kind.store(rng.standard_normal(n))
    start = rng.standard_normal(n).astype(kind.wide)
    x, y = place(values, shift), place(start, shift)
    run("arrays", f"axpy_{kind}", x, y, np.int64(n), kind.wide.type(0.3))
    want = start.astype(float) + float(kind.wide.type(0.3)) * kind.read(values)
    assert_allclose(y, want, atol=1e-6 if kind.wide == "f4" else 1e-15)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shift", [0, 1])
def test_fill(run, place, kind, n, shift):
    x = place(np.zeros(n, kind.dtype), shift)
    run("arrays", f"fill_{kind}", x, np.int64(n), kind.wide.type(1.5))
    assert_array_equal(kind.read(x), 1.5)


def awkward(rng, n):
    """Return numbers within, near and beyond the range of halves, and NaN."""
    special = [0, -0.0, 1, -1, np.nan, np.inf, -np.inf, 65504, 65519.99, 65520, 1e30]
    special += [2.0**-14, 2.0**-24, 2.0**-25, 3 * 2.0**-26, 3.39e38, 1 + 2.0**-11]
    special += [1 + 3 * 2.0**-11, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 1e-30, -1e-30]
    values = rng.standard_normal(n) * 10.0 ** rng.integers(-6, 6, n)
    values[: len(special)] = special[:n]
    return values.astype(np.float32)


@halves
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shift", [0, 1])
def test_to_half_and_back_has_the_bits_of_rounding_to_even(
    run, place, rng, half, n, shift
):
    values = awkward(rng, n)
    source, out = place(values, shift), place(np.zeros(n, half.dtype), shift)
    run("arrays", f"narrow_{half}", source, out, np.int64(n))
    want, number = half.store(values), ~np.isnan(values)
    assert_array_equal(out[number], want[number])
    assert np.isnan(half.read(out)[~number]).all()
    back = place(np.zeros(n, np.float32), shift)
    run("arrays", f"widen_{half}", out, back, np.int64(n))
    assert_array_equal(back, half.read(out).astype(np.float32))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("count, shift", [(1, 0), (2, 0), (2, 1), (5, 0)])
def test_row_sum(run, place, rng, kind, n, count, shift):
    parts = kind.store(rng.standard_normal((count, n)))
    rows, out = place(parts, shift), place(np.zeros(n, kind.dtype))
    run("arrays", f"row_sum_{kind}", rows, np.int64(count), out, np.int64(n))
    want = kind.read(parts[0]).astype(kind.wide)
    for part in parts[1:]:  # in order, in the type of the arithmetic
        want = want + kind.read(part).astype(kind.wide)
    assert_array_equal(out, kind.store(want))


@halves
def test_row_sum_of_halves_overflows_at_the_end_alone(run, place, half):
    parts = place(half.store(np.array([[6e4], [6e4], [-6e4]])))
    out = place(np.zeros(1, half.dtype))
    run("arrays", f"row_sum_{half}", parts, np.int64(3), out, np.int64(1))
    assert half.read(out)[0] == half.read(half.store([6e4]))[0]


def test_what_is_not_finite_passes_through(run, place, kind):
    # In a pack of 16 bytes and in the tail after it.
    values, n = np.ones(19), np.int64(19)
    values[[0, 16]], values[[3, 17]], values[[5, 18]] = np.nan, np.inf, -np.inf
    a = kind.wide.type(2)
    x = place(kind.store(values))
    run("arrays", f"scale_{kind}", x, n, a)
    assert_array_equal(kind.read(x), 2 * values)
    y = place(np.ones(19, kind.wide))
    run("arrays", f"axpy_{kind}", place(kind.store(values)), y, n, a)
    assert_array_equal(y, 1 + 2 * values)
    parts, out = place(kind.store(np.stack([np.ones(19), values]))), place(x.copy())
    run("arrays", f"row_sum_{kind}", parts, np.int64(2), out, n)
    assert_array_equal(kind.read(out), 1 + values)


@pytest.mark.parametrize("dtype", ["u2", "f4", "f8", "c16"])
@pytest.mark.parametrize("width", [1, 3, 40])
@pytest.mark.parametrize("k", [0, 1, 700])
def test_take_rows(run, place, rng, dtype, width, k):
    source = rng.integers(0, 1000, (90, width)).astype(dtype)
    rows = rng.integers(0, 90, k)
    out = place(np.zeros((k, width), dtype))
    size = np.dtype(dtype).itemsize
    run(
        "arrays",
        f"take_rows_{size}",
        place(source),
        place(rows),
        out,
        np.int64(k),
        np.int64(width),
    )
    assert_array_equal(out, source[rows])
