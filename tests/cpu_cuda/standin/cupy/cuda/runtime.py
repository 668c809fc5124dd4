"""As cupy.cuda.runtime."""

import ctypes
import os

import numpy as np
from cupy import _memory
from cupy._queue import stream_of as _stream_of

CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF = 0, 1, 2, 14
memcpyHostToDevice, memcpyDeviceToHost, memcpyDeviceToDevice = 1, 2, 3

_current = 0
_TEXTS = {
    100: "cudaErrorNoDevice: no CUDA-capable device is detected",
    35: "cudaErrorInsufficientDriver: CUDA driver version is insufficient",
    101: "cudaErrorInvalidDevice: invalid device ordinal",
}


class CUDARuntimeError(RuntimeError):
    def __init__(self, status):
        super().__init__(_TEXTS[status])
        self.status = status


def getDeviceCount():
    if _there() < 0:
        raise CUDARuntimeError(35)
    if not _visible():
        raise CUDARuntimeError(100)
    return len(_visible())


def _there():
    return int(os.environ.get("STANDIN_DEVICES", 4))


def _visible():
    """Return the numbers of the devices that the process may see."""
    there = range(max(0, _there()))
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return list(there)
    return [int(number) for number in filter(None, asked.split(","))]


def getDevice():
    return _current


def setDevice(device):
    global _current
    if not 0 <= device < getDeviceCount():
        raise CUDARuntimeError(101)
    _current = device


def driverGetVersion():
    return 13000 if _there() >= 0 else 11000


def getDeviceProperties(device):
    device = _visible()[device]
    return {
        "name": b"CPU in place of a GPU",
        # The real one is cut at a byte of 0 too, as the last device's.
        "uuid": bytes([device + 1] * (16 if device < 3 else 5)),
        "major": 9,
        "minor": 0,
        "multiProcessorCount": 2,
        "totalGlobalMem": _memory.TOTAL_BYTES,
    }


def deviceGetPCIBusId(device):
    return f"0000:{_visible()[device]:02X}:00.0"


def memGetInfo():
    return _memory.free_bytes(), _memory.TOTAL_BYTES


def memsetAsync(ptr, value, size, stream):
    buffer = _memory.device_buffer(ptr, size, "memset")

    def run():
        ctypes.memset(ptr, value, size)
        buffer.check("memset")

    _stream_of(stream)._queue(run)


def memcpyAsync(dst, src, size, kind, stream):
    stream = _stream_of(stream)
    to_device = kind in (memcpyHostToDevice, memcpyDeviceToDevice)
    from_device = kind in (memcpyDeviceToHost, memcpyDeviceToDevice)
    kept = [_memory.registry.find(dst), _memory.registry.find(src)]
    if to_device:
        _memory.device_buffer(dst, size, "memcpy")
    if from_device:
        _memory.device_buffer(src, size, "memcpy")
    if kind == memcpyHostToDevice and kept[1] is None:
        # Of pageable memory a copy is made before the call returns.
        taken = np.array(_memory.bytes_at(src, size))
        stream._queue(lambda: ctypes.memmove(dst, taken.ctypes.data, size) and kept)
        return
    stream._queue(lambda: ctypes.memmove(dst, src, size) and kept)
    if kind == memcpyDeviceToHost and kept[0] is None:
        stream.synchronize()  # to pageable memory the call waits


def memcpy2DAsync(dst, dpitch, src, spitch, width, height, kind, stream):
    assert kind == memcpyDeviceToDevice and width <= min(dpitch, spitch)
    _memory.device_buffer(dst, (height - 1) * dpitch + width, "memcpy")
    _memory.device_buffer(src, (height - 1) * spitch + width, "memcpy")
    kept = [_memory.registry.find(dst), _memory.registry.find(src)]

    def run():
        for row in range(height):
            ctypes.memmove(dst + row * dpitch, src + row * spitch, width)
        kept.clear()

    _stream_of(stream)._queue(run)
