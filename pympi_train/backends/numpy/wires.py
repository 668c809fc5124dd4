"""Values in fewer bits for the wire, with NumPy: packed, unpacked, added up.

``pack_...`` takes ``values + residual`` and leaves in ``residual`` what does not fit
into the codes: zero where that is not finite. ``unpack_...`` writes what codes stand
for, or adds it to what is there. Blocks of WIDTH elements share one scale.
"""

import numpy as np

from pympi_train.backends.blocks import quiet

WIDTH = 256  # elements that share a scale
STEP = 32 * WIDTH  # elements at once: what is allocated on the way is small and reused
LEAST = 2.0**-119  # scales below have no exact inverse in float32's normal numbers
HALF_TOP = 15  # the largest of a block becomes a number below 2^15: half of float16's
HALF_LEAST, HALF_MOST = -112, 113  # exponents of scales that float32 has, inverse too


@quiet
def pack_bf16(values, residual, codes, scales):
    """Pack to the upper 16 bits of float32, rounded to nearest, ties to even.

    Parameters
    ----------
    values : ndarray, shape (n,), float32 or float64
    residual : ndarray, shape (n,), same dtype
        Changed in place.
    codes : ndarray, shape (n,), uint16
        Receives the codes. NaN stays NaN; from 3.39e38 on numbers become infinite.
    scales : ndarray, shape (0,), float32
        Not used.
    """
    for piece, _ in _pieces(values.size):
        left = residual[piece]
        left += values[piece]
        small = left.astype(np.float32)
        whole = small.view(np.uint32)
        upper = whole >> np.uint32(16)
        nan = np.isnan(small)
        whole += upper & np.uint32(1)
        whole += np.uint32(0x7FFF)
        whole >>= np.uint32(16)
        if nan.any():  # rounding up would carry NaN over to a number
            whole[nan] = upper[nan] | np.uint32(0x40)
        codes[piece] = whole
        whole <<= np.uint32(16)
        left -= small
        lost = ~np.isfinite(left)
        if lost.any():
            left[lost] = 0.0


@quiet
def unpack_bf16(codes, scales, out, add):
    """Write, or ``add``, what ``codes`` of `pack_bf16` stand for to ``out``."""
    for piece, _ in _pieces(out.size):
        if add:
            out[piece] += _bf16(codes[piece])
        else:
            out[piece] = _bf16(codes[piece])


def _bf16(codes):
    return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)


@quiet
def pack_fp16(values, residual, codes, scales):
    """Pack to float16 with a power of two for each block of WIDTH elements.

    The largest of a block becomes a number in [2^14, 2^15), so that no sum is too
    large and no gradient too small for float16. A block with an element that is not
    finite becomes NaN as a whole.

    Parameters
    ----------
    values, residual
        As for `pack_bf16`.
    codes : ndarray, shape (n,), uint16
    scales : ndarray, shape (ceil(n / WIDTH),), float32
    """

    def scale_of(top):
        exponent = np.frexp(top.astype(np.float64))[1] - HALF_TOP
        wrong = ~np.isfinite(top) | (exponent > HALF_MOST)
        exponent = np.clip(np.where(wrong, 0, exponent), HALF_LEAST, HALF_MOST)
        return np.where(wrong, np.nan, np.ldexp(1.0, exponent)).astype(np.float32)

    def code_of(scaled, out):
        out[...] = scaled.astype(np.float32).astype(np.float16).view(np.uint16)

    _pack_scaled(values, residual, codes, scales, scale_of, code_of, _half)


@quiet
def unpack_fp16(codes, scales, out, add):
    """Write, or ``add``, what `pack_fp16` packed to ``out``."""
    _unpack_scaled(codes, scales, out, add, _half)


def _half(codes, dtype):
    return codes.view(np.float16).astype(dtype)


@quiet
def pack_int8(values, residual, codes, scales):
    """Pack to integers in [-127, 127] times a scale for each WIDTH elements.

    The scale is the largest magnitude of the block over 127. A block with an element
    that is not finite, or above float32's range, becomes NaN as a whole; one of
    nothing but numbers below 2e-34 becomes zero.

    Parameters
    ----------
    values, residual
        As for `pack_bf16`.
    codes : ndarray, shape (n,), int8
    scales : ndarray, shape (ceil(n / WIDTH),), float32
    """

    def scale_of(top):
        scale = (top / top.dtype.type(127)).astype(np.float32)
        scale[scale < LEAST] = 0.0
        scale[~np.isfinite(scale)] = np.nan
        return scale

    def code_of(scaled, out):
        np.rint(scaled, out=scaled)
        out[...] = scaled.astype(np.int8)

    _pack_scaled(values, residual, codes, scales, scale_of, code_of, _integers)


@quiet
def unpack_int8(codes, scales, out, add):
    """Write, or ``add``, what `pack_int8` packed to ``out``."""
    _unpack_scaled(codes, scales, out, add, _integers)


def _integers(codes, dtype):
    return codes.astype(dtype)


def _pack_scaled(values, residual, codes, scales, scale_of, code_of, numbers):
    for piece, of_scales in _pieces(values.size):
        left, out = residual[piece], codes[piece]
        left += values[piece]
        rows, out = _rows(left), _rows(out)
        scale = scales[of_scales]
        scale[:] = scale_of(np.maximum(rows.max(axis=1), -rows.min(axis=1)))
        wrong = np.isnan(scale)
        rows[wrong] = 0.0
        factor = np.where(wrong, 0, scale).astype(rows.dtype)
        code_of(rows * np.where(factor > 0, 1 / factor, 0)[:, None], out)
        rows -= numbers(out, rows.dtype) * factor[:, None]


def _unpack_scaled(codes, scales, out, add, numbers):
    for piece, of_scales in _pieces(out.size):
        rows = numbers(_rows(codes[piece]), out.dtype)
        rows *= scales[of_scales, None].astype(out.dtype)
        if add:
            out[piece] += rows.reshape(-1)
        else:
            out[piece] = rows.reshape(-1)


def _rows(piece):
    return piece.reshape(-1, min(WIDTH, piece.size))


def _pieces(size):
    """Return [(slice, slice of the scales), ...]; each in whole rows, or one short."""
    whole = size // WIDTH * WIDTH
    cuts = [*range(0, whole, STEP), whole] + ([size] if whole < size else [])
    return [
        (slice(a, b), slice(a // WIDTH, -(-b // WIDTH))) for a, b in zip(cuts, cuts[1:])
    ]
