"""As cupy.cuda.cublas: products of matrices that lie column by column."""

import numpy as np
from cupy import _memory
from cupy._queue import get_current_stream as _get_current_stream
from cupy.cuda import runtime

CUBLAS_OP_N, CUBLAS_OP_T = 0, 1
CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F = 68, 70
CUBLAS_GEMM_DEFAULT = -1
_TYPES = {
    runtime.CUDA_R_32F: np.float32,
    runtime.CUDA_R_64F: np.float64,
    runtime.CUDA_R_16F: np.float16,
    runtime.CUDA_R_16BF: np.uint16,
}


_modes: dict = {}


def getVersion(handle):
    return 0


def setMathMode(handle, mode):
    _modes[handle] = mode


class CUBLASError(RuntimeError):
    pass


def gemmEx(
    handle,
    transa,
    transb,
    m,
    n,
    k,
    alpha,
    A,
    Atype,
    lda,
    B,
    Btype,
    ldb,
    beta,
    C,
    Ctype,
    ldc,
    computeType,
    algo,
):
    wide = np.float64 if computeType == CUBLAS_COMPUTE_64F else np.float32
    factors = [
        _memory.bytes_at(p, np.dtype(wide).itemsize).view(wide)[0]
        for p in (alpha, beta)
    ]
    a = _matrix(A, Atype, lda, (m, k) if transa == CUBLAS_OP_N else (k, m))
    b = _matrix(B, Btype, ldb, (k, n) if transb == CUBLAS_OP_N else (n, k))
    c = _matrix(C, Ctype, ldc, (m, n))

    def run():
        left, right = _read(a, wide), _read(b, wide)
        left = left if transa == CUBLAS_OP_N else left.T
        right = right if transb == CUBLAS_OP_N else right.T
        with np.errstate(all="ignore"):
            product = factors[0] * (left @ right)
            if factors[1]:
                product += factors[1] * _read(c, wide)
            _write(product, c)

    _get_current_stream()._queue(run)


def _matrix(ptr, kind, lead, shape):
    rows, columns = shape
    dtype = np.dtype(_TYPES[kind])
    if lead < max(1, rows):
        raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE")
    n_bytes = ((columns - 1) * lead + rows) * dtype.itemsize
    flat = _memory.device_view(ptr, n_bytes, "gemmEx").view(dtype)
    strides = dtype.itemsize, lead * dtype.itemsize
    return np.lib.stride_tricks.as_strided(flat, shape, strides)


def _read(matrix, wide):
    if matrix.dtype == np.uint16:
        return (matrix.astype(np.uint32) << 16).view(np.float32)
    return matrix.astype(wide)


def _write(values, matrix):
    if matrix.dtype == np.uint16:
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        matrix[...] = np.where(np.isnan(values), 0x7FC0, rounded)
    else:
        matrix[...] = values
