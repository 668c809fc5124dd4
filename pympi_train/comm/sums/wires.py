"""Encodings of float32 and float64 slices in fewer bits, for messages."""

import numpy as np

from pympi_train.backends.numpy.wires import WIDTH

KINDS = {  # name: (type of a code, whether there are scales)
    "bf16": (np.uint16, False),
    "fp16": (np.uint16, True),
    "int8": (np.int8, True),
}
ALIGN_BYTES = 4


class Wire:
    r"""The encoder and decoder of one kind of compression.

    Parameters
    ----------
    kind : {"bf16", "fp16", "int8"}
        bf16: the upper half of float32. fp16: float16 times a power of two per 256
        elements, so that gradient sums beyond 65504 fit. int8: integers in [-127, 127]
        times a float32 per 256 elements, as [1]_ but with equal steps.
    ops : module
        The backend.

    Notes
    -----
    ``n`` elements take ``2 n`` (bf16), ``2 n + n / 64`` (fp16) or ``n + n / 64``
    (int8) bytes, rounded up. The scales come first, then the codes.

    The error of a decoded element ``x`` is at most

    - bf16: :math:`2^{-8} |x|`,
    - fp16: :math:`2^{-11} |x|`, or :math:`2^{-39}` of the maximum of its block,
    - int8: 1/254 of the maximum of its block.

    A value that is not finite stays not finite. With fp16 and int8, its whole block of
    256 elements becomes NaN.

    References
    ----------
    .. [1] T. Dettmers, M. Lewis, S. Shleifer and L. Zettlemoyer, "8-bit Optimizers
       via Block-wise Quantization", ICLR 2022. arXiv:2110.02861.
    """

    def __init__(self, kind, ops):
        self.kind, self.ops = kind, ops
        self._type, self._scaled = KINDS[kind]
        self._pack = getattr(ops, f"pack_{kind}")
        self._unpack = getattr(ops, f"unpack_{kind}")

    def bytes(self, n):
        """Return the number of bytes of ``n`` elements, a multiple of 4."""
        size = n * np.dtype(self._type).itemsize
        return self._scale_bytes(n) + -(-size // ALIGN_BYTES) * ALIGN_BYTES

    def encode(self, values, out, residual=None):
        """Write ``values``, shape (n,), to ``out``, ``bytes(n)`` elements of uint8.

        Parameters
        ----------
        residual : ndarray, shape (n,), of the values' dtype, optional
            Added to the values first; receives the encoding error, always finite.
        """
        if residual is None:
            residual = np.zeros_like(values)
        self._pack(values, residual, *self._parts(out, values.size))

    def decode(self, data, out):
        """Decode ``data``, shape (bytes(n),), to ``out``, shape (n,)."""
        self._unpack(*self._parts(data, out.size), out, False)

    def decode_add(self, data, out):
        """Add the decoded ``data`` to ``out``, in the precision of ``out``."""
        self._unpack(*self._parts(data, out.size), out, True)

    def _scale_bytes(self, n):
        return 4 * -(-n // WIDTH) if self._scaled else 0

    def _parts(self, data, n):
        """Return codes and scales as views of bytes."""
        start = self._scale_bytes(n)
        stop = start + n * np.dtype(self._type).itemsize
        return data[start:stop].view(self._type), data[:start].view(np.float32)
