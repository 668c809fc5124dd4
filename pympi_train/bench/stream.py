"""Memory bandwidth, measured with the STREAM triad."""

import numpy as np

from pympi_train.backends.blocks import flat_blocks, scratch, typed
from pympi_train.backends.threads import over_chunks

ELEMENTS = 3  # two read, one written; the write-allocate read is not counted


class Triad:
    r"""``a <- b + s c`` over its own arrays, on the threads that run the updates.

    Parameters
    ----------
    size : int
        Number of elements of each array.
    dtype : dtype
        float32 or float64.
    backend : {"numpy", "numba"}
        Backend of the loop. The compiled loop is faster if the arrays fit into a cache.

    Attributes
    ----------
    n_bytes : int
        Bytes that one call moves.

    References
    ----------
    .. [1] J. D. McCalpin, "Memory Bandwidth and Machine Balance in Current High
       Performance Computers", IEEE TCCA Newsletter, 1995.
    """

    def __init__(self, size, dtype, backend):
        self.arrays = tuple(np.ones(size, dtype) for _ in range(3))
        self.n_bytes = ELEMENTS * self.arrays[0].nbytes
        self._compiled = _compiled() if backend == "numba" else None

    def __call__(self):
        if self._compiled is None:
            _blocked(*self.arrays, 0.5)
        else:
            over_chunks(self._compiled, self.arrays, (0.5,))


def _blocked(a, b, c, s):
    (s,) = typed(a.dtype, s)
    for block in flat_blocks(a):
        product = scratch(a.dtype, a[block].size)
        np.multiply(c[block], s, out=product)
        np.add(b[block], product, out=a[block])


def _plain(a, b, c, s):
    s = a.dtype.type(s)
    for i in range(a.size):
        a[i] = b[i] + s * c[i]


def _compiled():
    from pympi_train.backends.numba.jit import kernel

    return kernel(_plain)
