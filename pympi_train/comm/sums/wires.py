"""Encodings of float32 and float64 slices in fewer bits, for messages."""

import numpy as np

from pympi_train.backends.blocks import quiet
from pympi_train.backends.numpy.wires import WIDTH

KINDS = {  # name: (type of a code, whether there are scales)
    "bf16": (np.uint16, False),
    "fp16": (np.uint16, True),
    "int8": (np.int8, True),
}
ALIGN_BYTES = 4
TOGETHER = 2**16  # elements of short messages that are decoded together


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
    bf16 takes 2 bytes per element. fp16 and int8 store each started block of 256
    elements as its scale, 4 bytes, and its 256 codes: ``2 n + n / 64`` and
    ``n + n / 64`` bytes for ``n`` elements, rounded up to whole blocks. The blocks of a
    message that begins at a multiple of 256 elements are therefore a part of the
    message of the whole: the slices of many ranks are encoded, and decoded, together.

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
        type_, self._scaled = KINDS[kind]
        self._type = np.dtype(type_)
        self._pack = getattr(ops, f"pack_{kind}")
        self._unpack = getattr(ops, f"unpack_{kind}")
        # On a CPU, codes and scales are packed where the message has them.
        self._is_direct = self._scaled and not ops.ON_DEVICE
        self._scratch = self._sums = None

    def padded(self, n):
        """Return the number of elements for which a message of ``n`` has codes."""
        step = WIDTH if self._scaled else ALIGN_BYTES // self._type.itemsize
        return -(-n // step) * step

    def bytes(self, n):
        """Return the number of bytes of ``n`` elements, a multiple of 4.

        ``n`` may be an array of numbers.
        """
        n_scales = -(-n // WIDTH) if self._scaled else 0
        return 4 * n_scales + self.padded(n) * self._type.itemsize

    def encode(self, values, out, residual=None):
        """Write ``values``, shape (n,), to ``out``, ``bytes(n)`` elements of uint8.

        Parameters
        ----------
        residual : ndarray, shape (n,), of the values' dtype, optional
            Added to the values first; receives the encoding error, always finite.
        """
        if residual is None:
            residual = np.zeros_like(values)
        if self._is_direct:
            codes = out.view(self._type)
            self._pack(values, residual, codes, out.view(np.float32))
            n_unused = self.padded(values.size) - values.size
            codes[codes.size - n_unused :] = 0
            return
        codes, scales = self._parts(out, values.size)
        self._pack(values, residual, codes[: values.size], scales)
        for of_blocks, of_message in self._stored(out, codes, scales):
            self.ops.copy_rows(of_blocks, of_message)

    def decode(self, data, out):
        """Decode ``data``, shape (bytes(n),), to ``out``, shape (n,)."""
        self._decode(data, out, False)

    def decode_add(self, data, out):
        """Add the decoded ``data`` to ``out``, in the precision of ``out``."""
        self._decode(data, out, True)

    @quiet
    def decode_sum(self, parts, out):
        """Write the sum of decoded messages to ``out``, added in order.

        Parameters
        ----------
        parts : ndarray, shape (P, bytes(n)), uint8, contiguous
        out : ndarray, shape (n,)

        Notes
        -----
        Short messages are decoded together, because with many ranks the calls took
        longer than the work in them.
        """
        self.decode(parts[0], out)
        width = self.padded(out.size)
        together = min(len(parts) - 1, TOGETHER // width)
        if together < 2:
            for data in parts[1:]:
                self.decode_add(data, out)
            return
        rows = self._rows((together + 1) * width, out.dtype).reshape(-1, width)
        self.ops.fill(rows[0], 0.0)
        self.ops.copy(out, rows[0, : out.size])
        for start in range(1, len(parts), together):
            some = parts[start : start + together]
            own = rows[: len(some) + 1]
            self.decode(some.reshape(-1), own[1:].reshape(-1))
            self.ops.row_sum(own, rows[0])
        self.ops.copy(rows[0, : out.size], out)

    def _decode(self, data, out, add):
        if self._is_direct:
            self._unpack(data.view(self._type), data.view(np.float32), out, add)
            return
        codes, scales = self._parts(data, out.size)
        for of_blocks, of_message in self._stored(data, codes, scales):
            self.ops.copy_rows(of_message, of_blocks)
        self._unpack(codes[: out.size], scales, out, add)

    def _parts(self, data, n):
        """Return contiguous codes and scales: of the message, or scratch for them."""
        n_codes = self.padded(n)
        if not self._scaled:
            return data.view(self._type), data[:0].view(np.float32)
        size = n_codes * self._type.itemsize + 4 * (n_codes // WIDTH)
        if self._scratch is None or self._scratch.size < size:
            # Zeros: the codes after a message's last element are sent too.
            self._scratch = self.ops.zeros(size, np.dtype(np.uint8))
        start = n_codes * self._type.itemsize
        codes, scales = self._scratch[:start], self._scratch[start:size]
        return codes.view(self._type), scales.view(np.float32)

    def _stored(self, data, codes, scales):
        """Return [(scales or codes by block, their place in a message), ...]."""
        if not scales.size:
            return []
        words = data.view(np.uint32).reshape(scales.size, -1)
        blocks = codes.view(np.uint32).reshape(scales.size, -1)
        return [
            (scales.view(np.uint32).reshape(-1, 1), words[:, :1]),
            (blocks, words[:, 1:]),
        ]

    def _rows(self, size, dtype):
        if self._sums is None or self._sums.size < size or self._sums.dtype != dtype:
            self._sums = self.ops.zeros(size, dtype)
        return self._sums[:size]
