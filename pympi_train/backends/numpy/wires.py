"""Wire formats of fewer bits, with NumPy: packing, unpacking and adding.

``pack_...`` encodes ``values + residual`` and writes the rounding error to
``residual``, or zero where the error is not finite. ``unpack_...`` writes the decoded
values, or adds them to ``out``. Blocks of WIDTH elements share one scale.

With scales, a CPU's functions also take a whole message as ``codes`` and as ``scales``:
two views of one memory, in which each block is its scale and then its WIDTH codes.
"""

import numpy as np

from pympi_train.backends.blocks import quiet

WIDTH = 256  # elements that share a scale
STEP = 32 * WIDTH  # elements at a time, so that temporaries are small and reused
LEAST = 2.0**-119  # smaller scales of pack_int8 become 0
HALF_TOP = 15  # a block's maximum is scaled below 2^15, half of float16's range
HALF_LEAST, HALF_MOST = -112, 113  # exponents of scales; float32 holds the inverses too


@quiet
def pack_bf16(values, residual, codes, scales):
    """Pack to the upper 16 bits of float32, rounded to nearest, ties to even.

    Parameters
    ----------
    values : ndarray, shape (n,), float32 or float64
    residual : ndarray, shape (n,), same dtype
        Added to ``values``; receives the rounding error.
    codes : ndarray, shape (n,), uint16
        Receives the codes. NaN stays NaN; magnitudes from 3.39e38 on become infinite.
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
        if nan.any():  # rounding up could carry a NaN over to a number
            whole[nan] = upper[nan] | np.uint32(0x40)
        codes[piece] = whole
        whole <<= np.uint32(16)
        left -= small
        lost = ~np.isfinite(left)
        if lost.any():
            left[lost] = 0.0


@quiet
def unpack_bf16(codes, scales, out, add):
    """Write the values that `pack_bf16` encoded to ``out``, or ``add`` them."""
    for piece, _ in _pieces(out.size):
        if add:
            out[piece] += _bf16(codes[piece])
        else:
            out[piece] = _bf16(codes[piece])


def _bf16(codes):
    return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)


@quiet
def pack_fp16(values, residual, codes, scales):
    """Pack to float16, with a power-of-two scale for each block of WIDTH elements.

    The largest magnitude of a block is scaled into [2^14, 2^15), so that no sum is too
    large and no gradient too small for float16. A block with a non-finite element
    becomes NaN as a whole.

    Parameters
    ----------
    values, residual
        As for `pack_bf16`.
    codes : ndarray, shape (n,), uint16
        Or a message, as ``scales``; see the top of this module.
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
    """Write the values that `pack_fp16` encoded to ``out``, or ``add`` them."""
    _unpack_scaled(codes, scales, out, add, _half)


def _half(codes, dtype):
    return codes.view(np.float16).astype(dtype)


@quiet
def pack_int8(values, residual, codes, scales):
    """Pack to integers in [-127, 127], with a scale for each block of WIDTH elements.

    The scale is the largest magnitude of the block over 127. A block with a non-finite
    element, or whose scale overflows float32, becomes NaN as a whole. A block of
    magnitudes below 2e-34 becomes zero.

    Parameters
    ----------
    values, residual
        As for `pack_bf16`.
    codes : ndarray, shape (n,), int8
        Or a message, as ``scales``; see the top of this module.
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
    """Write the values that `pack_int8` encoded to ``out``, or ``add`` them."""
    _unpack_scaled(codes, scales, out, add, _integers)


def _integers(codes, dtype):
    return codes.astype(dtype)


def _pack_scaled(values, residual, codes, scales, scale_of, code_of, numbers):
    codes, scales = _by_block(codes, scales, values.size)
    for piece, of_scales in _pieces(values.size):
        left = residual[piece]
        left += values[piece]
        rows, out = _rows(left), _codes_of(codes, piece, of_scales)
        scale = scales[of_scales]
        scale[:] = scale_of(np.maximum(rows.max(axis=1), -rows.min(axis=1)))
        wrong = np.isnan(scale)
        rows[wrong] = 0.0
        factor = np.where(wrong, 0, scale).astype(rows.dtype)
        code_of(rows * np.where(factor > 0, 1 / factor, 0)[:, None], out)
        rows -= numbers(out, rows.dtype) * factor[:, None]


def _unpack_scaled(codes, scales, out, add, numbers):
    codes, scales = _by_block(codes, scales, out.size)
    for piece, of_scales in _pieces(out.size):
        rows = numbers(_codes_of(codes, piece, of_scales), out.dtype)
        rows *= scales[of_scales, None].astype(out.dtype)
        if add:
            out[piece] += rows.reshape(-1)
        else:
            out[piece] = rows.reshape(-1)


def lies_in_message(codes, n):
    """Return whether ``codes`` of ``n`` elements are a message with scales in it."""
    return codes.size != n


def _by_block(codes, scales, n):
    """Return codes and scales; those of a message as views, codes a row a block."""
    if not lies_in_message(codes, n):
        return codes, scales
    n_blocks = -(-n // WIDTH)
    return codes.reshape(n_blocks, -1)[:, -WIDTH:], scales.reshape(n_blocks, -1)[:, 0]


def _codes_of(codes, piece, blocks):
    if codes.ndim == 2:  # of a message; the last block may be short
        return codes[blocks, : piece.stop - piece.start]
    return _rows(codes[piece])


def _rows(piece):
    return piece.reshape(-1, min(WIDTH, piece.size))


def _pieces(size):
    """Return [(slice, slice of its scales), ...]: whole rows, or one short row."""
    whole = size // WIDTH * WIDTH
    cuts = [*range(0, whole, STEP), whole] + ([size] if whole < size else [])
    return [
        (slice(a, b), slice(a // WIDTH, -(-b // WIDTH))) for a, b in zip(cuts, cuts[1:])
    ]
