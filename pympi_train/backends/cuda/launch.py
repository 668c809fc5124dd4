"""Compilation of kernels at first use, and their launch on flat arrays."""

from functools import cache

import numpy as np

from pympi_train.backends.cuda.device import BFLOAT16, cp, device
from pympi_train.backends.cuda.sources import OPTIONS, kernel_source

THREADS = 256  # per block; the kernels are compiled for it
BLOCKS_PER_PROCESSOR = 8  # the most blocks that a multiprocessor holds at once
MOST_PARTIALS = 1024  # maximum number of blocks of a sum; one more block adds them up
ACCESS_BYTES = 16

SUFFIXES = {
    np.dtype(np.float32): "f32",
    np.dtype(np.float64): "f64",
    np.dtype(np.float16): "f16",
    BFLOAT16: "bf16",
}


def wide(dtype):
    """Return the dtype of the arithmetic on elements of ``dtype``."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


@cache
def module(file, suffix):
    """Return the kernels of ``kernels/<file>.cu`` for one type of elements."""
    # CuPy adds -ftz=true, which makes numbers below 1.2e-38 zero in float32.
    options = (*OPTIONS, f"-DONLY_{suffix.upper()}")
    return cp.RawModule(code=kernel_source(file), options=options)


@cache
def _kernel(file, name, suffix, typed):
    function = f"{name}_{suffix}" if typed else name
    return module(file, suffix).get_function(function)


def launch(file, name, dtype, grid, args, *, typed=True):
    """Queue a kernel.

    Parameters
    ----------
    file, name : str
        ``kernels/<file>.cu``, and the kernel without its suffix.
    dtype : dtype
        Type of the elements.
    grid : int or tuple of int
        Number of blocks.
    args : tuple
        Device arrays, `NULL`, and NumPy scalars of exactly the parameters' types. They
        are neither converted nor checked.
    typed : bool
        Whether the kernel exists for each type of elements.
    """
    kernel = _kernel(file, name, SUFFIXES[dtype], typed)
    kernel((grid,) if isinstance(grid, int) else grid, (THREADS,), args)


NULL = np.intp(0)


@cache
def _most_blocks(index):
    return BLOCKS_PER_PROCESSOR * device().n_processors


def blocks(size, dtype, most=None):
    """Return the number of blocks for ``size`` elements, 16 bytes per thread."""
    each = THREADS * ACCESS_BYTES // dtype.itemsize
    limit = _most_blocks(device().index) if most is None else most
    return max(1, min(-(-size // each), limit))


def require_flat(**arrays):
    """Raise ValueError unless arrays are C-contiguous and on the device.

    Kernels receive only addresses, and would misread any other array.
    """
    for name, array in arrays.items():
        if not isinstance(array, cp.ndarray) or not array.flags.c_contiguous:
            kind = type(array).__module__
            raise ValueError(
                f"{name}: expected a C-contiguous array on the device, got one of "
                f"{kind} with strides {getattr(array, 'strides', None)}"
            )
