"""Advice to the kernel about mapped files."""

import ctypes
import functools
import mmap

WILL_NEED = getattr(mmap, "MADV_WILLNEED", None)
# Linux reads no more per call than the read-ahead of the device, usually 128 KiB.
ADVISED_BYTES = 2**17


def read_soon(array):
    """Let the kernel read a view of a mapped file into the page cache, without waiting.

    It does nothing for rows that are not contiguous, and on systems without such
    advice. An array in memory is not changed.

    Parameters
    ----------
    array : ndarray
    """
    if WILL_NEED is None or not array.nbytes or not array.flags.c_contiguous:
        return
    first = array.__array_interface__["data"][0]
    start, stop = first // mmap.PAGESIZE * mmap.PAGESIZE, first + array.nbytes
    for at in range(start, stop, ADVISED_BYTES):
        _madvise()(at, min(ADVISED_BYTES, stop - at), WILL_NEED)


@functools.cache
def _madvise():
    """Return the C library's madvise; calling it releases Python's lock."""
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
