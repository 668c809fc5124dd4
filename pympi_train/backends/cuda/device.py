"""CUDA through CuPy: devices, streams, host and device memory, and copies.

Only the modules in ``backends/cuda/`` import CuPy. Without a usable GPU, the import or
any call may raise almost any exception; ``backends/gpu.py`` handles them.

Functions queue work on the current stream, which runs it in order. A function that
waits for the work says so.
"""

import platform
from dataclasses import dataclass
from functools import cache, partial

import cupy as cp
import numpy as np
from cupy.cuda import runtime

from pympi_train.errors import DeviceMemoryError

BFLOAT16 = np.dtype(np.uint16)  # NumPy has no bfloat16, so arrays hold its bits
SLOTS = 256  # slots for numbers on the way to the host, allocated together


@dataclass(frozen=True)
class Device:
    """Properties of the GPU that this process uses.

    Attributes
    ----------
    index : int
        Index among the GPUs visible to the process.
    name, uuid : str
        The uuid is the same for all processes on one GPU, whichever GPUs they see.
    capability : str
        Compute capability, such as "9.0".
    n_processors : int
        Number of streaming multiprocessors.
    n_bytes : int
        Size of its memory.
    """

    index: int
    name: str
    uuid: str
    capability: str
    n_processors: int
    n_bytes: int


def bind(local_rank):
    """Bind this process to a visible GPU, round robin by ``local_rank``.

    Call this before any allocation. If the launcher makes a single GPU visible to each
    rank, that one is used.
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
    """Return the uuid as text; with node and PCI bus id if CuPy has truncated it.

    CuPy treats the 16 bytes as a C string, which ends at the first zero byte.
    """
    if len(uuid) >= 16:
        return uuid[:16].hex()
    place = runtime.deviceGetPCIBusId(index)
    return f"{uuid.hex()}-{platform.node()}-{place}"


def device():
    """Return the Device that this process uses."""
    return _device(runtime.getDevice())


def free_bytes():
    """Return the bytes of device memory that are free or cached by CuPy for reuse."""
    return runtime.memGetInfo()[0] + cp.get_default_memory_pool().free_bytes()


def empty(shape, dtype):
    """Return an uninitialised device array.

    Raises
    ------
    DeviceMemoryError
        If the device has too little free memory.
    """
    try:
        return cp.empty(shape, dtype)
    except MemoryError as error:  # the base class of CuPy's
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
    """Return the stream called ``name``, whose work may overlap with the current one's.

    Order between streams needs events.
    """
    return cp.cuda.Stream(non_blocking=True)


def record(on=None):
    """Return an event that completes when the stream's work queued so far is done."""
    event = cp.cuda.Event(disable_timing=True)
    event.record(stream() if on is None else on)
    return event


_waiters: list = []  # each wait is made through all of them


def make_waits(how):
    """Make each wait of this process through ``how(wait)``, until `no_longer_make`.

    Queued NCCL calls may wait for other ranks, so a watchdog must know when the host
    waits for the device. With several NCCL communicators, any may be the cause, so
    every watchdog is notified.
    """
    _waiters.append(how)


def no_longer_make(how):
    """Undo `make_waits`."""
    if how in _waiters:
        _waiters.remove(how)


def wait_for(what):
    """Wait for an event, or for all work queued on a stream."""
    wait = what.synchronize
    for how in _waiters:
        wait = partial(how, wait)
    wait()


def wait_for_device():
    """Wait for all work queued on the current stream."""
    wait_for(stream())


def pinned(shape, dtype):
    """Return an array in page-locked host memory, whose copies are asynchronous.

    Such memory is scarce and slow to allocate: allocate it once and keep it.
    """
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    # The array keeps the allocation alive. An allocation of 0 bytes is refused.
    memory = cp.cuda.alloc_pinned_memory(max(1, count * dtype.itemsize))
    return np.frombuffer(memory, dtype, count).reshape(shape)


def queue_to_host(source, out, on=None):
    """Queue ``out <- source``, from the device to (pinned) host memory.

    With pageable memory, the call itself waits for the work queued before, unseen by
    `make_waits`: call `wait_for_device` first.
    """
    _require_pair(source, out)
    _queue(out.ctypes.data, source.data.ptr, out.nbytes, runtime.memcpyDeviceToHost, on)


def queue_to_device(source, out, on=None):
    """Queue ``out <- source``, from (pinned) host memory to the device.

    The source must not change until the copy is done.
    """
    _require_pair(source, out)
    _queue(out.data.ptr, source.ctypes.data, out.nbytes, runtime.memcpyHostToDevice, on)


def queue_copy(source, out):
    """Queue ``out <- source``, both on the device."""
    _require_pair(source, out)
    _queue(
        out.data.ptr, source.data.ptr, out.nbytes, runtime.memcpyDeviceToDevice, None
    )


def queue_rows(source, out):
    """Queue ``out <- source``, matrices on the device whose rows may lie apart."""
    _require_alike(source, out)
    for array in (source, out):
        is_dense = array.shape[-1] == 1 or array.strides[-1] == array.itemsize
        if array.ndim != 2 or not is_dense:
            raise ValueError("expected matrices with contiguous rows")
    if not out.nbytes:
        return
    n_rows, n_bytes = len(out), out.nbytes // len(out)
    # A single row may have any stride.
    pitches = (max(array.strides[0], n_bytes) for array in (out, source))
    to_pitch, from_pitch = pitches
    runtime.memcpy2DAsync(
        *(out.data.ptr, to_pitch, source.data.ptr, from_pitch, n_bytes, n_rows),
        *(runtime.memcpyDeviceToDevice, stream().ptr),
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
    _require_alike(source, out)
    for array in (source, out):
        if not array.flags.c_contiguous:
            raise ValueError("expected C-contiguous arrays")


def _require_alike(source, out):
    # Copies count bytes only, and would read or write out of bounds.
    if source.nbytes != out.nbytes or source.dtype != out.dtype:
        raise ValueError(
            f"expected arrays of one size and dtype, got {source.shape} "
            f"{source.dtype} and {out.shape} {out.dtype}"
        )


class Pending:
    """Numbers that the device is still computing and will copy to the host.

    Parameters
    ----------
    source : device array, shape (1,) or (2,), float64
        May be overwritten by work queued later.

    Notes
    -----
    ``float()`` and ``values()`` wait for the numbers, but not for work queued later.
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
        # Never read. The next copy to its slot is queued after this one.
        if getattr(self, "_slot", None) is not None:
            self._give_back()


class _Product:
    """A number times a `Pending`."""

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
