"""Compiled loops are vectorised: an innocent edit may cost a factor of 4 to 10."""

import platform
import re

import pytest

numba = pytest.importorskip("numba")
from numba import boolean, float64  # noqa: E402

from pympi_train.backends.numba import activations as numba_activations  # noqa: E402
from pympi_train.backends.numba import losses as numba_losses  # noqa: E402
from pympi_train.backends.numba import updates as numba_updates  # noqa: E402
from pympi_train.backends.numba.jit import OPTIONS  # noqa: E402

FLAT, ROWS = numba.float32[::1], numba.float32[:, ::1]
KERNELS = [
    (numba_updates._sgd, [FLAT] * 2 + [float64] * 3, "mulps subps"),
    (numba_updates._momentum, [FLAT] * 3 + [float64] * 4 + [boolean], "mulps subps"),
    (numba_updates._adam, [FLAT] * 4 + [float64] * 9, "sqrtps divps mulps"),
    (
        numba_updates._sum_squares,
        [FLAT] * 2 + [float64] * 2 + [numba.intp, float64[::1]],
        "cvtps2pd mulpd addpd",
    ),
    (numba_activations._bias_add, [ROWS, FLAT], "addps"),
    (numba_activations._bias_relu, [ROWS, FLAT], "addps"),
    (numba_activations._relu_gradient, [ROWS] * 2, "mulps"),
    (numba_activations._tanh_gradient, [ROWS] * 2, "mulps subps"),
    (numba_activations._gelu_gradient, [FLAT] * 3 + [float64] * 2, "mulps addps"),
    (numba_activations._column_sums, [ROWS, FLAT, FLAT, numba.intp], "addps"),
    (
        numba_losses._softmax_finish,
        [ROWS, numba.intp[::1], numba.none, FLAT, FLAT],
        "mulps",
    ),
]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86 assembly")
@pytest.mark.parametrize(
    "kernel, types, instructions", KERNELS, ids=lambda x: getattr(x, "__name__", None)
)
def test_vectorised(kernel, types, instructions):
    fresh = numba.njit(tuple(types), **OPTIONS)(kernel.py_func)
    (text,) = fresh.inspect_asm().values()
    for name in instructions.split():
        assert re.search(rf"\bv?{name}\b.*%[xyz]mm", text), f"no packed {name}"
    assert not re.search(r"\bvf(n?m)(add|sub)", text), "fused: other bits than NumPy"
