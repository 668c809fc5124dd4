"""The reason why there is no GPU is one line, whatever CuPy raises."""

import gpus
import pytest

from pympi_train.backends import gpu


class DynamicLibNotFoundError(RuntimeError):
    """Like the one of cuda-pathfinder."""


@pytest.mark.parametrize(
    "error, told",
    [
        (
            DynamicLibNotFoundError('Failure finding "libnvrtc.so.13"\n  listdir(...)'),
            "a library of CUDA is missing",
        ),
        (OSError("libnvrtc.so.13: cannot open"), "a library of CUDA is missing"),
        (
            RuntimeError("compile failed\nfatal error: cuda_fp16.h: No such file"),
            "CUDA's headers are missing",
        ),
        (
            RuntimeError("cudaErrorInsufficientDriver: too old"),
            "no GPU can be used: cudaErrorInsufficientDriver: too old",
        ),
        (RuntimeError("cudaErrorNoDevice: none"), "the driver shows no GPU"),
        (
            RuntimeError("4 x 1.5 x 1.5 came out as 0"),
            "a kernel that tries the GPU failed: RuntimeError: 4 x 1.5",
        ),
        (MemoryError(), "a kernel that tries the GPU failed: MemoryError"),
    ],
)
def test_what_cupy_raises_becomes_a_line(error, told):
    line = gpu._told(error)
    assert line.startswith(told)
    assert "\n" not in line
    if "missing" in told:
        assert "pympi-train[cuda13]" in line


@pytest.mark.gpu
def test_a_probe_that_gives_a_wrong_number_is_told(monkeypatch):
    gpus.use()
    from pympi_train.backends.cuda import arrays as cuda_arrays

    monkeypatch.setattr(gpu, "_found", [])
    cuda_arrays.probe.cache_clear()
    monkeypatch.setattr(cuda_arrays, "matmul", lambda a, b, out: None)
    line = gpu.unavailable(0)
    assert line == (
        "a kernel that tries the GPU failed: RuntimeError: "
        "4 x 1.5 x 1.5 came out as 0.0"
    )
    monkeypatch.undo()
    assert gpu.unavailable(0) is None


@pytest.mark.gpu
def test_matrix_products_of_halves_are_summed_wide():
    cp = gpus.use()
    import numpy as np

    from pympi_train.backends.cuda import ops

    half = 2**19
    a, b = (ops.zeros((1, 2 * half), np.dtype(np.float16)) for _ in range(2))
    ops.fill(a, 0.5)
    ops.fill(b, 0.5)
    ops.fill(b[:, half:], -0.5)
    out = ops.zeros((1, 1), np.dtype(np.float16))
    ops.matmul(a, b.T, out)
    assert ops.to_host(out)[0, 0] == 0  # partial sums are 131072, beyond float16
    if not gpus.PRESENT:
        assert set(cp.cuda.cublas._modes.values()) == {16}
