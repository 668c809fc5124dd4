"""Wire formats of fewer bits on the device: ``kernels/wires.cu``."""

import numpy as np

from pympi_train.backends.cuda.launch import NULL
from pympi_train.backends.cuda.launch import blocks as _blocks
from pympi_train.backends.cuda.launch import launch, require_flat
from pympi_train.backends.numpy.wires import WIDTH

_EACH = 8  # elements per thread, so that a warp takes WIDTH


def pack_bf16(values, residual, codes, scales):
    """Pack to the upper 16 bits of float32; see ``numpy.wires``."""
    _pack("pack_bf16", values, residual, codes, NULL)


def pack_fp16(values, residual, codes, scales):
    """Pack to float16, with a power-of-two scale for each WIDTH elements."""
    _pack("pack_fp16", values, residual, codes, scales)


def pack_int8(values, residual, codes, scales):
    """Pack to integers in [-127, 127], with a scale for each WIDTH elements."""
    _pack("pack_int8", values, residual, codes, scales)


def unpack_bf16(codes, scales, out, add):
    """Write the decoded values to ``out``, or ``add`` them."""
    _unpack("unpack_bf16", codes, NULL, out, add)


def unpack_fp16(codes, scales, out, add):
    """Write the decoded values to ``out``, or ``add`` them."""
    _unpack("unpack_fp16", codes, scales, out, add)


def unpack_int8(codes, scales, out, add):
    """Write the decoded values to ``out``, or ``add`` them."""
    _unpack("unpack_int8", codes, scales, out, add)


def _pack(name, values, residual, codes, scales):
    require_flat(values=values, residual=residual, codes=codes)
    rounded = -(-values.size // WIDTH) * WIDTH // _EACH  # threads, in whole warps
    grid = _blocks(4 * rounded, np.dtype(np.float32))
    args = values, residual, codes, scales, np.int64(values.size)
    launch("wires", name, values.dtype, grid, args)


def _unpack(name, codes, scales, out, add):
    require_flat(codes=codes, out=out)
    args = codes, scales, out, np.int64(out.size), np.int32(bool(add))
    launch("wires", name, out.dtype, _blocks(out.size, out.dtype), args)
