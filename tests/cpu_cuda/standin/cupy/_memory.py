"""Memory of the device, and page-locked memory of the host."""

import bisect
import ctypes
import os
import weakref

import numpy as np

MARGIN, CANARY, FRESH = 256, 0xA5, 0xFF  # bytes of fresh memory are NaN as floats


class Buffer:
    """An allocation, between canaries."""

    def __init__(self, n_bytes, where):
        self.where, self.n_bytes = where, n_bytes
        self._raw = np.full(n_bytes + 2 * MARGIN + 512, CANARY, np.uint8)
        skip = -(self._raw.ctypes.data + MARGIN) % 512 + MARGIN  # as CuPy aligns
        self.bytes = self._raw[skip : skip + n_bytes]
        self.bytes[:] = FRESH
        self._around = self._raw[:skip], self._raw[skip + n_bytes :]
        self.ptr = self._raw.ctypes.data + skip

    def check(self, what):
        if not all((around == CANARY).all() for around in self._around):
            raise IllegalAddress(f"cudaErrorIllegalAddress: beside an array, by {what}")


class IllegalAddress(RuntimeError):
    """What CUDA would call cudaErrorIllegalAddress, or not notice."""


class _Registry:
    """Buffers by address."""

    def __init__(self):
        self._starts, self._buffers = [], weakref.WeakValueDictionary()

    def add(self, buffer):
        self._buffers[buffer.ptr] = buffer
        bisect.insort(self._starts, buffer.ptr)
        weakref.finalize(buffer, self._forget, buffer.ptr)

    def _forget(self, ptr):
        at = bisect.bisect_left(self._starts, ptr)
        if at < len(self._starts) and self._starts[at] == ptr:
            del self._starts[at]

    def n_bytes(self, where):
        """Return how many there are in such memory."""
        buffers = self._buffers.values()
        return sum(one.n_bytes for one in buffers if one.where == where)

    def find(self, ptr):
        """Return the buffer that ``ptr`` lies in, or None."""
        at = bisect.bisect_right(self._starts, ptr) - 1
        buffer = self._buffers.get(self._starts[at]) if at >= 0 else None
        inside = buffer is not None and ptr <= buffer.ptr + buffer.n_bytes
        return buffer if inside else None


registry = _Registry()


class OutOfMemoryError(MemoryError):
    pass


def allocate(n_bytes, where="device"):
    if n_bytes > free_bytes():
        raise OutOfMemoryError(f"Out of memory allocating {n_bytes:,} bytes")
    buffer = Buffer(n_bytes, where)
    registry.add(buffer)
    return buffer


def device_buffer(ptr, n_bytes, what):
    """Return the device buffer of ``n_bytes`` from ``ptr``; raise if there is none."""
    buffer = registry.find(ptr)
    if buffer is None or buffer.where != "device":
        raise IllegalAddress(f"cudaErrorIllegalAddress: {what}: no device memory")
    if ptr + n_bytes > buffer.ptr + buffer.n_bytes:
        raise IllegalAddress(f"cudaErrorIllegalAddress: {what}: beyond an array")
    return buffer


def device_view(ptr, n_bytes, what):
    """Return device memory as an array of bytes, which keeps it alive."""
    buffer = device_buffer(ptr, n_bytes, what)
    return buffer.bytes[ptr - buffer.ptr :][:n_bytes]


def bytes_at(ptr, n_bytes):
    """Return the bytes at an address as an array over the same memory."""
    return np.frombuffer((ctypes.c_uint8 * n_bytes).from_address(ptr), np.uint8)


class PinnedMemoryPointer(bytearray):
    """Page-locked memory, as alloc_pinned_memory returns it."""


def alloc_pinned_memory(size):
    memory = PinnedMemoryPointer(b"\xff" * size)
    pinned = Pinned(memory)
    registry.add(pinned)
    memory.kept = pinned
    return memory


class Pinned:
    def __init__(self, memory):
        self.where, self.n_bytes = "pinned", len(memory)
        self.ptr = np.frombuffer(memory, np.uint8).ctypes.data
        self._memory = weakref.ref(memory)


class _Pool:
    def free_bytes(self):
        return 0


def get_default_memory_pool():
    return _Pool()


def free_bytes():
    return TOTAL_BYTES - registry.n_bytes("device")


TOTAL_BYTES = int(os.environ.get("STANDIN_BYTES", 2**32))
