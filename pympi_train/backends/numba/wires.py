"""Wire formats of fewer bits, compiled: the functions of ``numpy.wires``.

Each makes one pass over memory. Maxima are those of the bits as integers: because of
NaN, compilers do not vectorise the maximum of floats.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pympi_train.backends.numba.jit import helper, kernel
from pympi_train.backends.numpy.wires import (
    HALF_LEAST,
    HALF_MOST,
    HALF_TOP,
    LEAST,
    WIDTH,
    lies_in_message,
)


def pack_bf16(values, residual, codes, scales):
    """Pack to bfloat16; see ``numpy.wires``."""
    _pack_bf16(values, residual, codes)


def unpack_bf16(codes, scales, out, add):
    """Unpack bfloat16; see ``numpy.wires``."""
    _unpack_bf16(codes, out, add)


def pack_fp16(values, residual, codes, scales):
    """Pack to float16 with scales; see ``numpy.wires``."""
    limits = (HALF_TOP, HALF_LEAST, HALF_MOST)
    place = _place(codes, scales, values.size)
    _pack_fp16(values, residual, codes, scales, WIDTH, *place, *limits)


def unpack_fp16(codes, scales, out, add):
    """Unpack float16 with scales; see ``numpy.wires``."""
    _unpack_fp16(codes, scales, out, add, WIDTH, *_place(codes, scales, out.size))


def pack_int8(values, residual, codes, scales):
    """Pack to integers with scales; see ``numpy.wires``."""
    place = _place(codes, scales, values.size)
    _pack_int8(values, residual, codes, scales, WIDTH, *place, LEAST)


def unpack_int8(codes, scales, out, add):
    """Unpack integers with scales; see ``numpy.wires``."""
    _unpack_int8(codes, scales, out, add, WIDTH, *_place(codes, scales, out.size))


def _place(codes, scales, n):
    """Return (first code, codes from block to block, scales from block to block)."""
    if not lies_in_message(codes, n):
        return 0, WIDTH, 1
    n_blocks = -(-n // WIDTH)
    step = codes.size // n_blocks
    return step - WIDTH, step, scales.size // n_blocks


def _same_bits(target_of):
    """Return an intrinsic that reinterprets a number's bits as another type."""

    @intrinsic
    def cast(typingctx, number):
        target = target_of[number]
        width = ir.IntType(target.bitwidth)
        kinds = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}

        def codegen(context, builder, signature, args):
            return builder.bitcast(args[0], kinds.get(target, width))

        return target(number), codegen

    return cast


_bits = _same_bits({types.float32: types.uint32, types.float64: types.uint64})
_float = _same_bits({types.uint32: types.float32, types.uint64: types.float64})


@helper
def _to_bf16(x):
    u = _bits(x)
    rounded = (u + np.uint32(0x7FFF) + ((u >> np.uint32(16)) & np.uint32(1))) & (
        np.uint32(0xFFFFFFFF)
    )
    nan = (u & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    kept = np.uint32((u >> np.uint32(16)) | np.uint32(0x40))
    return np.uint16(kept if nan else np.uint32(rounded) >> np.uint32(16))


@helper
def _from_bf16(code):
    return _float(np.uint32(np.uint32(code) << np.uint32(16)))


@helper
def _to_half(x):
    """Return the bits of ``x`` in float16, to nearest, ties to even; |x| < 2^16."""
    u = _bits(x)
    sign = np.uint32((u >> np.uint32(16)) & np.uint32(0x8000))
    u = np.uint32(u & np.uint32(0x7FFFFFFF))
    # Below 2^-14: add 0.5, whose last bit is worth float16's smallest number.
    small = np.uint32(_bits(np.float32(_float(u) + np.float32(0.5)))) - np.uint32(
        0x3F000000
    )
    odd = (u >> np.uint32(13)) & np.uint32(1)
    large = np.uint32(u + odd - np.uint32(0x37FFF001)) >> np.uint32(13)
    return np.uint16(
        sign | np.uint32(small if u < np.uint32(0x38800000) else np.uint32(large))
    )


@helper
def _from_half(code):
    """Return the float32 value of the bits of a finite float16."""
    u = np.uint32(code)
    size = _float(np.uint32((u & np.uint32(0x7FFF)) << np.uint32(13)))
    size *= np.float32(2.0**112)  # the difference of the exponent biases, 127 - 15
    sign = np.uint32((u & np.uint32(0x8000)) << np.uint32(16))
    return _float(np.uint32(_bits(size) | sign))


@kernel
def _pack_bf16(values, residual, codes):
    zero = values.dtype.type(0.0)
    T = values.dtype.type
    for i in range(values.size):
        y = values[i] + residual[i]
        code = _to_bf16(np.float32(y))
        codes[i] = code
        left = y - T(_from_bf16(code))
        residual[i] = left if left - left == zero else zero


@kernel
def _unpack_bf16(codes, out, add):
    T = out.dtype.type
    if add:
        for i in range(out.size):
            out[i] += T(_from_bf16(codes[i]))
    else:
        for i in range(out.size):
            out[i] = T(_from_bf16(codes[i]))


@kernel
def _pack_fp16(
    values, residual, codes, scales, width, skip, step, hop, top_exponent, least, most
):
    T = values.dtype.type
    for block in range((values.size + width - 1) // width):
        start, at, k = block * width, skip + block * step, block * hop
        y = residual[start : start + width]
        x = values[start : start + width]
        out = codes[at : at + y.size]
        top = _add_and_find_top(x, y)
        exponent = math.frexp(np.float64(top))[1] - top_exponent
        if not top < np.inf or exponent > most:
            scales[k] = np.float32(np.nan)
            out[:] = 0
            y[:] = T(0.0)
            continue
        scale = T(math.ldexp(1.0, max(least, exponent)))
        scales[k] = np.float32(scale)
        inverse = T(1.0) / scale
        for j in range(y.size):
            code = _to_half(np.float32(y[j] * inverse))
            out[j] = code
            y[j] -= T(_from_half(code)) * scale


@kernel
def _unpack_fp16(codes, scales, out, add, width, skip, step, hop):
    T = out.dtype.type
    for block in range((out.size + width - 1) // width):
        start, at, scale = block * width, skip + block * step, T(scales[block * hop])
        o = out[start : start + width]
        c = codes[at : at + o.size]
        if add:
            for j in range(o.size):
                o[j] += T(_from_half(c[j])) * scale
        else:
            for j in range(o.size):
                o[j] = T(_from_half(c[j])) * scale


@helper
def _add_and_find_top(x, y):
    """Add ``x`` to ``y``; return the largest magnitude, or NaN if there is one."""
    zero = x.dtype.type(0.0)
    top = _bits(zero)
    for j in range(y.size):
        s = x[j] + y[j]
        y[j] = s
        u = _bits(abs(s))
        top = u if u > top else top
    return _float(top)


@kernel
def _pack_int8(values, residual, codes, scales, width, skip, step, hop, tiny):
    T = values.dtype.type
    for block in range((values.size + width - 1) // width):
        start, at, k = block * width, skip + block * step, block * hop
        y = residual[start : start + width]
        x = values[start : start + width]
        out = codes[at : at + y.size]
        scale = np.float32(_add_and_find_top(x, y) / T(127))
        if not scale < np.inf:
            scales[k] = np.float32(np.nan)
            out[:] = 0
            y[:] = T(0.0)
            continue
        if scale < tiny:
            scales[k] = np.float32(0.0)
            out[:] = 0
            continue
        scales[k] = scale
        factor = T(scale)
        inverse = T(1.0) / factor
        for j in range(y.size):
            code = np.int8(np.rint(y[j] * inverse))
            out[j] = code
            y[j] -= T(code) * factor


@kernel
def _unpack_int8(codes, scales, out, add, width, skip, step, hop):
    T = out.dtype.type
    for block in range((out.size + width - 1) // width):
        start, at, scale = block * width, skip + block * step, T(scales[block * hop])
        o = out[start : start + width]
        c = codes[at : at + o.size]
        if add:
            for j in range(o.size):
                o[j] += T(c[j]) * scale
        else:
            for j in range(o.size):
                o[j] = T(c[j]) * scale
