"""Arrays on the device."""

import numpy as np
from cupy import _memory
from cupy._queue import get_current_stream


class _MemoryPointer:
    def __init__(self, ptr, buffer):
        self.ptr, self.mem = ptr, buffer


class ndarray:
    """As cupy.ndarray, as far as pympi_train goes: it is no numpy.ndarray, and NumPy
    cannot read it."""

    __array_priority__ = 100

    def __init__(self, host, buffer):
        self._host, self._buffer = host, buffer

    @property
    def data(self):
        return _MemoryPointer(self._host.ctypes.data, self._buffer)

    @property
    def __cuda_array_interface__(self):
        contiguous = self._host.flags.c_contiguous
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._host.ctypes.data, False),
            "strides": None if contiguous else self.strides,
            "version": 3,
            "stream": 1,
        }

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` "
            "to construct a NumPy array explicitly."
        )

    def __len__(self):
        return len(self._host)

    def __getitem__(self, index):
        view = self._host[index]
        if not isinstance(view, np.ndarray):
            view = self._host[index : index + 1].reshape(())
        return ndarray(view, self._buffer)

    def reshape(self, *shape):
        return ndarray(self._host.reshape(*shape), self._buffer)

    def view(self, dtype=None, type=None):
        return ndarray(self._host.view(dtype), self._buffer)

    @property
    def T(self):
        return ndarray(self._host.T, self._buffer)

    def get(self, stream=None, order="C", out=None, blocking=True):
        (stream or get_current_stream()).synchronize()
        return np.array(self._host)


def _forwarded(name):
    return property(lambda self: getattr(self._host, name))


for _name in (
    "shape",
    "dtype",
    "size",
    "nbytes",
    "ndim",
    "itemsize",
    "strides",
    "flags",
):
    setattr(ndarray, _name, _forwarded(_name))


def empty(shape, dtype=float, order="C"):
    dtype = np.dtype(dtype)
    buffer = _memory.allocate(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
    return ndarray(buffer.bytes.view(dtype).reshape(shape), buffer)


def zeros(shape, dtype=float, order="C"):
    array = empty(shape, dtype)
    get_current_stream()._queue(lambda: array._host.fill(0))
    return array


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    if isinstance(a, ndarray):
        return a
    a = np.array(a, dtype)
    array = empty(a.shape, a.dtype)
    get_current_stream()._queue(lambda: np.copyto(array._host, a))
    return array
