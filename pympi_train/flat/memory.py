"""Flat blocks: all parameters of a rank in one contiguous array."""

from dataclasses import dataclass

import numpy as np

from pympi_train.flat.runs import Runs

# Tensors start at multiples of this number of elements, so that 16-byte accesses are
# aligned in the block and in a copy of it with 2 bytes per element.
ALIGN = 8


@dataclass(frozen=True)
class Tensor:
    """One named array inside a flat block.

    Parameters
    ----------
    name : str
        Unique in its model; the key in weight files.
    shape : tuple of int
        ``()`` for a scalar.
    is_weight : bool, default True
        Whether L2 and weight decay apply; False for biases and intercepts.
    """

    name: str
    shape: tuple
    is_weight: bool = True

    @property
    def size(self):
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


class Layout:
    """The position of each tensor in a flat block of one dtype.

    Parameters
    ----------
    tensors : sequence of Tensor
        In model order, first layer first.
    dtype : str or dtype
        Dtype of the block: float32 or float64.

    Attributes
    ----------
    size : int
        Number of elements of the block, including padding.
    n_parameters : int
        Number of elements of the tensors, without padding.
    offsets : tuple of int
        First element of each tensor.
    """

    def __init__(self, tensors, dtype):
        self.tensors = tuple(tensors)
        self.dtype = np.dtype(dtype)
        offsets, end = [], 0
        for tensor in self.tensors:
            offsets.append(end)
            end += -(-tensor.size // ALIGN) * ALIGN
        self.offsets, self.size = tuple(offsets), end
        self.n_parameters = sum(tensor.size for tensor in self.tensors)

    def views(self, block):
        """Return the tensors of ``block``, shape (size,), as a list of views."""
        return [
            block[start : start + tensor.size].reshape(tensor.shape)
            for tensor, start in zip(self.tensors, self.offsets)
        ]

    def named(self, block):
        """Return the tensors of ``block`` as a dict of views by name."""
        return {t.name: v for t, v in zip(self.tensors, self.views(block))}

    def runs(self):
        """Return the Runs of the block.

        Padding belongs to the tensor before it: it is zero and stays zero.
        """
        ends = self.offsets[1:] + (self.size,)
        kinds = (tensor.is_weight for tensor in self.tensors)
        return Runs.joined(zip(ends, kinds))


def empty_block(layout):
    """Return a zeroed block for ``layout``, aligned to 64 bytes (a cache line)."""
    raw = np.zeros(layout.size * layout.dtype.itemsize + 64, dtype=np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + layout.size * layout.dtype.itemsize].view(layout.dtype)
