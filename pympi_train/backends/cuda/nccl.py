"""NCCL through CuPy: sums and messages between GPUs, queued on a stream."""

import warnings
from functools import cache

import numpy as np

from pympi_train.backends.cuda import device as cuda


@cache
def _nccl():
    with warnings.catch_warnings():
        # Without libnccl, CuPy warns and provides a module without communicators.
        warnings.simplefilter("ignore")
        from cupy.cuda import nccl
    return nccl


def unavailable():
    """Return why NCCL cannot be used, in one line, or None."""
    try:
        if not _nccl().available:
            return "NCCL is not installed (pip install nvidia-nccl-cu13, or -cu12)"
    except Exception as error:  # a library that cannot be loaded
        return f"NCCL cannot be loaded: {error}"
    return None


def unique_id():
    """Return an id that one rank creates for all ranks of a communicator."""
    return _nccl().get_unique_id()


class Communicator:
    """An NCCL communicator of ranks with one GPU each.

    Calls are queued on ``stream``. Arrays are C-contiguous and used as a whole.

    Parameters
    ----------
    size, rank : int
    uid : bytes
        Result of `unique_id` on one rank.
    stream : Stream

    Notes
    -----
    Collective.
    """

    def __init__(self, size, rank, uid, stream):
        nccl = _nccl()
        self._comm = nccl.NcclCommunicator(size, uid, rank)
        self._types = {
            np.dtype(np.uint8): nccl.NCCL_UINT8,
            np.dtype(np.float32): nccl.NCCL_FLOAT32,
            np.dtype(np.float64): nccl.NCCL_FLOAT64,
        }
        self._stream = stream

    def all_reduce(self, block):
        """Replace ``block`` by its sum over the ranks."""
        where = block.data.ptr
        how = self._types[block.dtype], _nccl().NCCL_SUM, self._stream.ptr
        self._comm.allReduce(where, where, block.size, *how)

    def reduce(self, source, out, root):
        """Write the sum of ``source`` to ``out`` on ``root``; others pass any array."""
        how = self._types[source.dtype], _nccl().NCCL_SUM, root, self._stream.ptr
        self._comm.reduce(source.data.ptr, out.data.ptr, source.size, *how)

    def broadcast(self, block, root):
        """Replace ``block`` by that of rank ``root``."""
        where = block.data.ptr
        kind = self._types[block.dtype]
        self._comm.broadcast(where, where, block.size, kind, root, self._stream.ptr)

    def send(self, block, rank):
        """Send ``block`` to a rank, which must receive the same number of elements."""
        kind = self._types[block.dtype]
        self._comm.send(block.data.ptr, block.size, kind, rank, self._stream.ptr)

    def receive(self, block, rank):
        """Receive ``block`` from a rank."""
        kind = self._types[block.dtype]
        self._comm.recv(block.data.ptr, block.size, kind, rank, self._stream.ptr)

    def abort(self):
        """Free the communicator without waiting for queued calls or other ranks."""
        self._comm.abort()

    def free(self):
        """Free the communicator. Collective."""
        cuda.wait_for(self._stream)
        self._comm.destroy()


class group:  # noqa: N801: a context manager, read as a word
    """Context whose calls run together, in no order, so that none waits for another."""

    def __enter__(self):
        _nccl().groupStart()

    def __exit__(self, kind, error, trace):
        _nccl().groupEnd()
