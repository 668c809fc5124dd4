"""The kernels of the wire formats, compared with NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.backends.numpy import wires as numpy_wires

SIZES = (0, 1, 255, 256, 257, 20_000)  # more groups than a grid has warps
CODES = {"bf16": np.uint16, "fp16": np.uint16, "int8": np.int8}


@pytest.fixture(params=CODES)
def wire(request):
    return request.param


@pytest.fixture(params=["f32", "f64"])
def dtype(request):
    return np.dtype({"f32": "f4", "f64": "f8"}[request.param])


def suffix(dtype):
    return f"f{8 * dtype.itemsize}"


def values_of(rng, n, dtype, scale=1.0):
    spread = 10.0 ** rng.integers(-3, 3, n)
    return (scale * rng.standard_normal(n) * spread).astype(dtype)


def pack(run, place, wire, values, residual, shift=0):
    """Return codes, scales and residual of the kernel, and those of NumPy."""
    n = len(values)
    n_scales = 0 if wire == "bf16" else -(-n // 256)
    want_left = residual.copy()
    want = np.zeros(n, CODES[wire]), np.zeros(n_scales, np.float32)
    getattr(numpy_wires, f"pack_{wire}")(values, want_left, *want)
    codes = place(np.zeros_like(want[0]), shift)
    scales, left = place(np.zeros_like(want[1])), place(residual, shift)
    args = (place(values, shift), left, codes, scales, np.int64(n))
    run("wires", f"pack_{wire}_{suffix(values.dtype)}", *args)
    return (codes, scales, left), (*want, want_left)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("scale, shift", [(1.0, 0), (1.0, 1), (1e-25, 0), (1e8, 0)])
def test_packs_as_numpy_does(run, place, rng, wire, dtype, n, scale, shift):
    values = values_of(rng, n, dtype, scale)
    residual = values_of(rng, n, dtype, 0.01 * scale)
    got, want = pack(run, place, wire, values, residual, shift)
    assert_array_equal(got[0], want[0])
    assert_array_equal(got[1], want[1])
    assert_allclose(got[2], want[2], rtol=0, atol=1e-6 * np.abs(values).max(initial=0))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("add, shift", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_unpacks_as_numpy_does(run, place, rng, wire, dtype, n, add, shift):
    values = values_of(rng, n, dtype)
    left = np.zeros(n, dtype)
    (codes, scales, _), _ = pack(run, place, wire, values, left, shift)
    before = values_of(rng, n, dtype)
    out, want = place(before, shift), before.copy()
    getattr(numpy_wires, f"unpack_{wire}")(codes, scales, want, bool(add))
    args = (codes, scales, out, np.int64(n), np.int32(add))
    run("wires", f"unpack_{wire}_{suffix(dtype)}", *args)
    # A GPU rounds a multiplication and addition once, NumPy twice.
    limit = np.finfo(dtype).eps * (np.abs(before) + np.abs(want))
    assert (np.abs(out - want) <= limit).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place_of", [0, 299, 599])
def test_what_is_not_finite_stays_so(run, place, rng, wire, dtype, wrong, place_of):
    values = values_of(rng, 600, dtype)
    values[place_of] = wrong
    with np.errstate(all="ignore"):
        got, want = pack(run, place, wire, values, np.zeros(600, dtype))
    assert np.isfinite(got[2]).all()
    out = place(np.zeros(600, dtype))
    args = (got[0], got[1], out, np.int64(600), np.int32(0))
    run("wires", f"unpack_{wire}_{suffix(dtype)}", *args)
    assert not np.isfinite(out[place_of])
    other = np.arange(600) // 256 != place_of // 256
    assert np.isfinite(out[other]).all()
    assert_array_equal(got[1], want[1])


@pytest.mark.parametrize("size", [0.0, 1e-44, 3e38])
def test_extremes(run, way, place, wire, dtype, size):
    if way == "device" and dtype == "f4" and size < np.finfo("f4").tiny:
        size = 0.0  # CuPy compiles with -ftz=true
    values = np.full(300, size, dtype)
    got, want = pack(run, place, wire, values, np.zeros(300, dtype))
    for mine, other in zip(got[:2], want):
        assert_array_equal(mine, other)
