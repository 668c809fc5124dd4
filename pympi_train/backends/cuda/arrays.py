"""Operations on device arrays, by ``kernels/arrays.cu`` and cuBLAS.

The functions of ``numpy.arrays``, and conversions from and to half precision.
"""

from functools import cache

import numpy as np
from cupy.cuda import cublas, runtime

from pympi_train.backends.cuda import device as cuda
from pympi_train.backends.cuda.device import BFLOAT16, cp
from pympi_train.backends.cuda.launch import blocks, launch, require_flat, wide
from pympi_train.backends.cuda.updates import squared_norm

ON_DEVICE = True  # NumPy cannot work on the arrays
empty = cuda.empty

# cuBLAS's names for a dtype and for the type in which its products are accumulated.
_TYPES = {
    np.dtype(np.float32): (runtime.CUDA_R_32F, cublas.CUBLAS_COMPUTE_32F),
    np.dtype(np.float64): (runtime.CUDA_R_64F, cublas.CUBLAS_COMPUTE_64F),
    np.dtype(np.float16): (runtime.CUDA_R_16F, cublas.CUBLAS_COMPUTE_32F),
    BFLOAT16: (runtime.CUDA_R_16BF, cublas.CUBLAS_COMPUTE_32F),
}
# CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION, which CuPy does not define. Without
# it, partial sums of halves may be added in half precision, where they overflow.
_WIDE_SUMS = 16
_SCALARS = {
    dtype: (np.ones(1, dtype), np.zeros(1, dtype)) for dtype in ("float32", "float64")
}


def zeros(shape, dtype):
    """Return an array of zeros."""
    array = empty(shape, dtype)
    cuda.queue_zeros(array)
    return array


def empty_block(layout):
    """Return a zeroed block for ``layout``; CuPy's memory is aligned to 512 bytes."""
    return zeros(layout.size, layout.dtype)


def matmul(a, b, out):
    """``out <- a b``; ``a`` and ``b`` may be transposes of C-contiguous arrays.

    Parameters
    ----------
    a, b, out : device arrays, shapes (m, k), (k, n), (m, n)
        Of one dtype; ``out`` is C-contiguous. Sums of halves are taken in float32.
    """
    (m, k), n = a.shape, b.shape[1]
    if b.shape[0] != k or out.shape != (m, n) or not a.dtype == b.dtype == out.dtype:
        raise ValueError(
            f"matmul: expected shapes (m, k), (k, n), (m, n) of one dtype, got "
            f"{a.shape} {a.dtype}, {b.shape} {b.dtype}, {out.shape} {out.dtype}"
        )
    if m == 0 or n == 0:
        return
    if k == 0:
        cuda.queue_zeros(out)
        return
    require_flat(out=out)
    kind, compute = _TYPES[a.dtype]
    one, nothing = _SCALARS[wide(a.dtype).name]
    # cuBLAS is column-major, so it computes out^T = b^T a^T.
    (op_b, lead_b), (op_a, lead_a) = _as_columns(b), _as_columns(a)
    cublas.gemmEx(
        *(_blas(cuda.device().index), op_b, op_a, n, m, k, one.ctypes.data),
        *(b.data.ptr, kind, lead_b, a.data.ptr, kind, lead_a),
        *(nothing.ctypes.data, out.data.ptr, kind, n),
        *(compute, cublas.CUBLAS_GEMM_DEFAULT),
    )


@cache
def _blas(index):
    """Return the cuBLAS handle of the current device. TensorFloat-32 stays off."""
    handle = cp.cuda.get_cublas_handle()
    cublas.setMathMode(handle, _WIDE_SUMS)
    return handle


def versions():
    """Describe what determines the last bits of this device's results."""
    here = cuda.device()
    return (
        f"{here.name}, compute capability {here.capability}, "
        f"driver {runtime.driverGetVersion()}, CuPy {cp.__version__}, "
        f"cuBLAS {cublas.getVersion(_blas(here.index))}"
    )


def _as_columns(matrix):
    """Return cuBLAS's (operation, leading dimension) of the transpose of ``matrix``."""
    if matrix.flags.c_contiguous:
        return cublas.CUBLAS_OP_N, matrix.shape[1]
    if matrix.flags.f_contiguous:
        return cublas.CUBLAS_OP_T, matrix.shape[0]
    raise ValueError(f"matmul: strides {matrix.strides} are not contiguous")


def take_rows(source, rows, out):
    """``out <- source[rows]``; ``rows`` is a device array of int64, in range."""
    require_flat(source=source, rows=rows, out=out)
    if out.size == 0:
        return
    row_bytes = out.nbytes // len(out)
    # The widest access that rows and addresses allow: views may begin at any element.
    sizes = row_bytes, source.data.ptr, out.data.ptr
    access = next(n for n in (16, 8, 4, 2) if not any(size % n for size in sizes))
    units = row_bytes // access
    args = source, rows, out, np.int64(len(out)), np.int64(units)
    grid = blocks(4 * len(out) * units, np.dtype(np.float32))
    name = f"take_rows_{access}"
    launch("arrays", name, np.dtype(np.float32), grid, args, typed=False)


def copy(source, out):
    """``out <- source``."""
    cuda.queue_copy(source, out)


def copy_rows(source, out):
    """``out <- source``, matrices whose rows may lie apart in memory."""
    cuda.queue_rows(source, out)


def fill(array, value):
    """``array <- value``, a number."""
    if value == 0:
        cuda.queue_zeros(array)
    else:
        _elementwise("fill", array, (array,), value)


def scale(array, factor):
    """``array <- factor array``."""
    _elementwise("scale", array, (array,), factor)


def add(source, out, factor=1.0):
    """``out <- out + factor source``; ``out`` is float32 for a ``source`` of halves."""
    require_flat(source=source, out=out)
    if out.dtype != wide(source.dtype) or out.size != source.size:
        raise ValueError(
            f"add: expected {source.size} elements of {wide(source.dtype)} to add to, "
            f"got {out.size} of {out.dtype}"
        )
    n, factor = np.int64(out.size), out.dtype.type(factor)
    grid = blocks(out.size, source.dtype)
    launch("arrays", "axpy", source.dtype, grid, (source, out, n, factor))


def subtract(a, b, out):
    """``out <- a - b``; ``out`` may be ``a``."""
    if out is not a:
        copy(a, out)
    add(b, out, -1.0)


def row_sum(parts, out):
    """``out[i] <- sum over r of parts[r, i]``, in the order of the rows.

    Halves are summed in float32 and rounded once.
    """
    require_flat(parts=parts, out=out)
    n = np.int64(out.size)
    args = parts, np.int64(len(parts)), out, n
    launch("arrays", "row_sum", out.dtype, blocks(out.size, out.dtype), args)


def narrow(source, out):
    """``out <- source``, float32 rounded to half precision."""
    _convert("narrow", source, out, out.dtype)


def widen(source, out):
    """``out <- source``, half precision converted to float32."""
    _convert("widen", source, out, source.dtype)


def square(block):
    """Wait for ``|block|^2`` and return it as a float; NaN if an element is NaN.

    Also NaN for an infinite element of 2 or 4 bytes: finite elements cannot overflow
    the float64 sum.
    """
    found = float(squared_norm(block, None, grad_scale=1.0, l2=0.0))
    return found if found < np.inf or block.dtype == np.float64 else np.nan


def to_host(array):
    """Wait for an array and return a copy of it in host memory."""
    out = np.empty(array.shape, array.dtype)
    cuda.wait_for_device()  # else the copy to pageable memory waits, unseen
    cuda.queue_to_host(array, out)
    cuda.wait_for_device()
    return out


def numbers(array):
    """Wait for an array and return a copy in host memory, halves as float32."""
    host = to_host(array)
    if array.dtype == BFLOAT16:
        return (host.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return host.astype(wide(array.dtype), copy=False)


def from_host(array, out):
    """``out <- array``, an array in host memory; wait for the copy."""
    array = np.ascontiguousarray(array)  # kept until the copy is done
    cuda.wait_for_device()  # else the copy from pageable memory may wait, unseen
    cuda.queue_to_device(array, out)
    cuda.wait_for_device()


def _elementwise(name, array, args, value):
    require_flat(array=array)
    n, value = np.int64(array.size), wide(array.dtype).type(value)
    grid = blocks(array.size, array.dtype)
    launch("arrays", name, array.dtype, grid, (*args, n, value))


def _convert(name, source, out, half):
    require_flat(source=source, out=out)
    args = source, out, np.int64(out.size)
    launch("arrays", name, half, blocks(out.size, half), args)


@cache
def probe(index):
    """Raise unless the current device can do what training needs.

    Compiles and runs a kernel, and computes a product. The right result shows that
    driver, memory, NVRTC, CUDA headers and cuBLAS work.
    """
    block = empty((4, 4), np.float32)
    out = zeros((4, 4), np.float32)
    fill(block, 1.5)
    matmul(block, block, out)
    found = to_host(out)
    if not (found == 9.0).all():
        raise RuntimeError(f"4 x 1.5 x 1.5 came out as {found[0, 0]}")
