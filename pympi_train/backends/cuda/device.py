"""CUDA through CuPy: devices, streams, memory on both sides, and copies between them.

CuPy is imported by ``backends/cuda*.py`` alone. Where there is no usable GPU, that or
any call of it may raise almost anything; ``backends/gpu.py`` finds out.

Work is queued on the stream that is current when a function is called, and done in
order; a function that waits for it says so.
"""

import platform
from dataclasses import dataclass
from functools import cache, partial

import cupy as cp
import numpy as np
from cupy.cuda import runtime

from pympi_train.errors import DeviceMemoryError

BFLOAT16 = np.dtype(np.uint16)  # NumPy has no bfloat16: its bits stand for it
SLOTS = 256  # numbers on their way to the host for which memory is made at once


@dataclass(frozen=True)
class Device:
    """What there is to know of the GPU that this process uses.

    Attributes
    ----------
    index : int
        Among those that the process sees.
    name, uuid : str
        The uuid is the same for all processes on one GPU, whatever each of them sees.
    capability : str
        Such as "9.0".
    n_processors : int
        Streaming multiprocessors.
    n_bytes : int
        Of its memory.
    """

    index: int
    name: str
    uuid: str
    capability: str
    n_processors: int
    n_bytes: int


def bind(local_rank):
    """Make one of the visible GPUs this process's, round robin by ``local_rank``.

    To be called before anything is allocated. Where the launcher shows each rank a
    GPU of its own, that is the one.
    """
    cp.cuda.Device(local_rank % runtime.getDeviceCount()).use()


@cache
def _device(index):
    found = runtime.getDeviceProperties(index)
    name = found["name"]
    return Device(
        index=index,
        name=name.decode() if isinstance(name, bytes) else name,
        uuid=_identity(bytes(found["uuid"]), index),
        capability=f"{found['major']}.{found['minor']}",
        n_processors=int(found["multiProcessorCount"]),
        n_bytes=int(found["totalGlobalMem"]),
    )


def _identity(uuid, index):
    """Return the uuid as text; with what else there is where CuPy has cut it.

    CuPy takes the 16 bytes for a C string, which ends at a byte of 0, if there is one.
    """
    if len(uuid) >= 16:
        return uuid[:16].hex()
    place = runtime.deviceGetPCIBusId(index)
    return f"{uuid.hex()}-{platform.node()}-{place}"


def device():
    """Return the Device that this process uses."""
    return _device(runtime.getDevice())


def free_bytes():
    """Return how much of the device's memory is free, or kept by CuPy for reuse."""
    return runtime.memGetInfo()[0] + cp.get_default_memory_pool().free_bytes()


def empty(shape, dtype):
    """Return a device array of any content.

    Raises
    ------
    DeviceMemoryError
        If there is no room for it.
    """
    try:
        return cp.empty(shape, dtype)
    except MemoryError as error:  # CuPy's is one
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        here, mib = device(), 2.0**20
        raise DeviceMemoryError(
            f"GPU {here.index} of {platform.node()} ({here.name}) has no room for "
            f"{n_bytes / mib:.1f} MiB more: {free_bytes() / mib:.1f} of "
            f"{here.n_bytes / mib:.1f} MiB are free. A smaller micro_batch_size takes "
            f'less, and so does [parallel] strategy = "sharded" on more ranks; ranks '
            f"and other programs on one GPU share its memory"
        ) from error


def stream():
    """Return the stream that work is queued on."""
    return cp.cuda.get_current_stream()


@cache
def side_stream(name):
    """Return a stream beside the current one: work on both may overlap.

    One for each name. Order between them is by events.
    """
    return cp.cuda.Stream(non_blocking=True)


def record(on=None):
    """Return an event that is reached when all that is queued so far is done."""
    event = cp.cuda.Event(disable_timing=True)
    event.record(stream() if on is None else on)
    return event


_waiters: list = []  # a wait is made within all of them


def make_waits(how):
    """Have each wait of this process made within ``how(wait)``, until `no_longer_make`.

    What the host waits for may itself wait for other ranks, in NCCL: a watchdog has to
    know of it. Of several NCCL communicators it may be any: all are told.
    """
    _waiters.append(how)


def no_longer_make(how):
    """Undo `make_waits`."""
    if how in _waiters:
        _waiters.remove(how)


def wait_for(what):
    """Wait until an event is reached, or all is done that is queued on a stream."""
    wait = what.synchronize
    for how in _waiters:
        wait = partial(how, wait)
    wait()


def wait_for_device():
    """Wait until all that is queued on the current stream is done."""
    wait_for(stream())


def pinned(shape, dtype):
    """Return an array in page-locked host memory: copies from and to it are truly
    asynchronous. Scarce, and slow to make: to be made once and kept."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    # The allocation is kept alive by the array; one of no bytes is refused.
    memory = cp.cuda.alloc_pinned_memory(max(1, count * dtype.itemsize))
    return np.frombuffer(memory, dtype, count).reshape(shape)


def queue_to_host(source, out, on=None):
    """Queue ``out <- source``, from the device to (pinned) host memory.

    Of other memory the call itself waits for what was queued before, unseen by
    `make_waits`: `wait_for_device` comes first then.
    """
    _require_pair(source, out)
    _queue(out.ctypes.data, source.data.ptr, out.nbytes, runtime.memcpyDeviceToHost, on)


def queue_to_device(source, out, on=None):
    """Queue ``out <- source``, from (pinned) host memory to the device.

    The source must stay as it is until that is done.
    """
    _require_pair(source, out)
    _queue(out.data.ptr, source.ctypes.data, out.nbytes, runtime.memcpyHostToDevice, on)


def queue_copy(source, out):
    """Queue ``out <- source``, both on the device."""
    _require_pair(source, out)
    _queue(
        out.data.ptr, source.data.ptr, out.nbytes, runtime.memcpyDeviceToDevice, None
    )


def queue_zeros(out):
    """Queue ``out <- 0``."""
    if out.nbytes:
        runtime.memsetAsync(out.data.ptr, 0, out.nbytes, stream().ptr)


def _queue(to, source, n_bytes, kind, on):
    if n_bytes:
        on = stream() if on is None else on
        runtime.memcpyAsync(to, source, n_bytes, kind, on.ptr)


def _require_pair(source, out):
    # Copies know bytes alone: what does not fit would be read or written beside.
    if source.nbytes != out.nbytes or source.dtype != out.dtype:
        raise ValueError(
            f"expected arrays of one size and dtype, got {source.shape} "
            f"{source.dtype} and {out.shape} {out.dtype}"
        )
    for array in (source, out):
        if not array.flags.c_contiguous:
            raise ValueError("expected C-contiguous arrays")


class Pending:
    """Numbers that the device is still computing, on their way to the host.

    Parameters
    ----------
    source : device array, shape (1,) or (2,), float64
        May be overwritten by what is queued later.

    Notes
    -----
    ``float()`` and ``values()`` wait until they are there; work that was queued after
    them goes on meanwhile.
    """

    def __init__(self, source):
        self._values, self._slots = None, _slots()
        self._slot, self._size = self._slots.take(), source.size
        queue_to_host(source, self._slot[: self._size])
        self._event = record()

    def values(self):
        """Return the numbers, a tuple of float."""
        if self._values is None:
            wait_for(self._event)
            self._values = tuple(self._slot[: self._size].tolist())
            self._give_back()
        return self._values

    def __float__(self):
        return self.values()[0]

    def __rmul__(self, factor):
        return _Product(factor, self)

    def _give_back(self):
        slot, self._slot = self._slot, None
        if slot is not None:
            self._slots.free.append(slot)

    def __del__(self):
        # One that nobody has read: what is queued for its slot next comes after it.
        if getattr(self, "_slot", None) is not None:
            self._give_back()


class _Product:
    """A number times one that is still to come."""

    def __init__(self, factor, pending):
        self._factor, self._pending = factor, pending

    def __float__(self):
        return self._factor * float(self._pending)


class _Slots:
    def __init__(self):
        self.free = []

    def take(self):
        if not self.free:
            self.free.extend(pinned((SLOTS, 2), np.float64))
        return self.free.pop()


@cache
def _slots():
    return _Slots()
